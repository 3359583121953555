"""One's own data, in JSON lines or Parquet: `query`, `positive` and, where there are, `negatives`.

A side is a text, the path of a picture, or an object with `text`, `image` (path, or bytes in
Parquet) and `instruction`. Other columns are passed over.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from metaembed.data.examples import Example, Picture, Side
from metaembed.data.formats.fields import MAX_LISTED, Context, Pictures, Row, RowReader, without
from metaembed.errors import ItemError
from metaembed.images import IMAGE_SUFFIXES

_KEYS = frozenset({"text", "image", "instruction"})
_STORED_PICTURE = frozenset({"bytes", "path"})


def reader(context: Context) -> RowReader:
    return partial(_read, pictures=context.pictures, limit=context.settings.num_negatives)


def _read(row: Row, *, pictures: Pictures, limit: int) -> Example:
    positive = side_of(row.get("positive"), "positive", pictures)
    query = side_of(row.get("query"), "query", pictures)
    return Example(query, positive, without(_negatives(row, pictures), positive, limit))


def _negatives(row: Row, pictures: Pictures) -> list[Side]:
    column = "negatives" if row.get("negatives") is not None else "negative"
    return sides_of(row.get(column), column, pictures)


def sides_of(value: Any, column: str, pictures: Pictures) -> list[Side]:
    """Several sides from a list, or one from anything else."""
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_LISTED:
        raise ItemError(f"Column {column!r} has {len(values):,} entries; give {MAX_LISTED:,}.")
    return [side_of(one, column, pictures) for one in values]


def side_of(value: Any, column: str, pictures: Pictures) -> Side:
    """A side from a text, a path, or an object."""
    if isinstance(value, str):
        picture = _named_picture(value, column, pictures)
        return Side.of(value) if picture is None else Side(picture=picture)
    if isinstance(value, Mapping) and not set(value) <= _STORED_PICTURE:
        return _side_of_object(value, column, pictures)
    return Side(picture=pictures.find(value, column))


def _side_of_object(value: Mapping[str, Any], column: str, pictures: Pictures) -> Side:
    if unknown := set(value) - _KEYS:
        raise ItemError(
            f"Column {column!r} has unknown keys {sorted(map(str, unknown))}; allowed are "
            f"{sorted(_KEYS)}."
        )
    for key in ("text", "instruction"):
        if not isinstance(value.get(key), str | None):
            raise ItemError(f"Column {column!r} has {key!r} of type {type(value[key]).__name__}.")
    picture = pictures.find(value.get("image"), column)
    return Side.of(value.get("text"), picture, value.get("instruction"))


def _named_picture(text: str, column: str, pictures: Pictures) -> Picture | None:
    if not looks_like_a_picture(text):
        return None
    try:
        path = pictures.path(text, column)
        return Picture(path) if path.is_file() else None
    except (ItemError, OSError):
        return None


def looks_like_a_picture(text: str) -> bool:
    r"""
    >>> looks_like_a_picture("images/hot dog.jpg"), looks_like_a_picture("dog.jpg\n")
    (True, False)
    """
    return (
        len(text) <= 4096
        and text.lower().endswith(tuple(IMAGE_SUFFIXES))
        and not {"\n", "\0"} & set(text)
        and "://" not in text
    )
