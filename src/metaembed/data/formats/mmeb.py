"""MMEB-train: six columns of strings, "" for absent, pictures by path.

A negative is a text and a picture together: in retrieval sets all texts are one instruction and
only the pictures differ.
"""

from functools import partial

from metaembed.data.examples import Example, Side
from metaembed.data.formats.fields import Context, Pictures, Row, RowReader, text_field, without


def reader(context: Context) -> RowReader:
    return partial(_read, pictures=context.pictures, limit=context.settings.num_negatives)


def _read(row: Row, *, pictures: Pictures, limit: int) -> Example:
    positive = side(row, "pos_text", "pos_image_path", pictures)
    negative = side(row, "neg_text", "neg_image_path", pictures)
    if negative.text is None and negative.picture is not None:
        negative = Side(instructions([None], positive)[0], negative.picture)
    return Example(
        query=side(row, "qry", "qry_image_path", pictures),
        positive=positive,
        negatives=without([negative], positive, limit),
    )


def side(row: Row, text: str, path: str, pictures: Pictures) -> Side:
    """A side from its columns; a picture in the row itself goes before one in a file."""
    embedded = path.removesuffix("_path")
    picture = pictures.find(row.get(embedded), embedded) or pictures.find(row.get(path), path)
    return Side.of(text_field(row, text), picture)


def instructions(texts: list[str | None], positive: Side) -> list[str | None]:
    """The texts of negatives that have pictures, none of them missing.

    Some sets leave the instruction out of negatives, which would give them away: they get that of
    another negative or, where none has any, that of the positive.
    """
    spare = next((text for text in texts if text is not None), None)
    if spare is None and positive.picture is not None:
        spare = positive.text
    return [spare if text is None else text for text in texts]
