"""Releases of MMEB-train with mined negatives: mmE5-MMEB-hardneg, MoCa-CL-Pairs, B3.

The columns of MMEB-train, but `neg_text` and `neg_image_path` are lists, or strings that hold a
Python list. MetaEmbed's own copy has the pictures in the rows: `qry_image`, `pos_image`,
`neg_image_0`, ….
"""

from functools import partial

from metaembed.data.examples import Example, Picture, Side
from metaembed.data.formats.fields import Context, Pictures, Row, RowReader, listed, without
from metaembed.data.formats.mmeb import instructions, side
from metaembed.errors import ItemError


def reader(context: Context) -> RowReader:
    return partial(
        _read,
        embedded=embedded_columns(context.columns),
        pictures=context.pictures,
        limit=context.settings.num_negatives,
    )


def _read(row: Row, *, embedded: list[str], pictures: Pictures, limit: int) -> Example:
    positive = side(row, "pos_text", "pos_image_path", pictures)
    return Example(
        query=side(row, "qry", "qry_image_path", pictures),
        positive=positive,
        negatives=without(_negatives(row, positive, embedded, pictures), positive, limit),
    )


def _negatives(row: Row, positive: Side, embedded: list[str], pictures: Pictures) -> list[Side]:
    texts, paths = _alike(
        listed(row.get("neg_text"), "neg_text"),
        listed(row.get("neg_image_path"), "neg_image_path"),
    )
    found = [pictures.find(row.get(column), column) for column in embedded]
    there = [number for number, picture in enumerate(found, start=1) if picture is not None]
    count = max(len(texts), *there, 0)
    missing = count - len(texts)
    texts, paths = texts + [""] * missing, paths + [""] * missing
    found += [None] * (count - len(found))
    images = [
        picture or pictures.find(path, "neg_image_path")
        for picture, path in zip(found, paths, strict=False)
    ]
    return _sides(texts, images, positive)


def embedded_columns(columns: tuple[str, ...]) -> list[str]:
    """`neg_image_0`, `neg_image_1`, … in order, as far as there are any."""
    numbered = [(c, c.removeprefix("neg_image_")) for c in columns if c.startswith("neg_image_")]
    return [c for c, number in sorted(numbered, key=lambda pair: pair[1]) if number.isdecimal()]


def _alike(texts: list[str], paths: list[str]) -> tuple[list[str], list[str]]:
    """Make both lists equally long: an empty one, or one of a single entry, stands for all."""
    count = max(len(texts), len(paths))
    spread = [one * count if len(one) == 1 else one or [""] * count for one in (texts, paths)]
    if len(spread[0]) != len(spread[1]):
        raise ItemError(
            f"Columns 'neg_text' and 'neg_image_path' list {len(texts)} and {len(paths)} negatives;"
            " they have to be equally long."
        )
    return spread[0], spread[1]


def _sides(texts: list[str], images: list[Picture | None], positive: Side) -> list[Side]:
    sides = [Side.of(text, image) for text, image in zip(texts, images, strict=True)]
    with_picture = [n for n, one in enumerate(sides) if one.picture is not None]
    filled = instructions([sides[n].text for n in with_picture], positive)
    for n, text in zip(with_picture, filled, strict=True):
        sides[n] = Side(text, sides[n].picture)
    return sides
