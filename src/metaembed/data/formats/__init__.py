"""The layouts in which training data are published, one file each."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from metaembed.data.formats import (
    hard_negatives,
    mmeb,
    own,
    page_images,
    positional,
    tevatron,
)
from metaembed.data.formats.fields import Context, Row, RowReader
from metaembed.data.settings import FormatName


class Format(NamedTuple):
    """How rows become examples, and which columns that takes."""

    reader: Callable[[Context], RowReader]
    columns: str
    """A regular expression of the columns that are read."""
    required: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    """Columns of which at least one holds something in a row that is used."""
    positive: tuple[str, ...] = ()
    is_own: bool = False
    """Whether paths may be absolute."""


_MMEB = Format(
    mmeb.reader,
    columns=r"(qry|pos|neg)(_text|_image|_image_path|_image_\d+)?",
    required=("qry", "pos_text"),
    query=("qry", "qry_image_path", "qry_image"),
    positive=("pos_text", "pos_image_path", "pos_image"),
)
_PAGES = Format(
    page_images.reader,
    columns="query|image",
    required=("query", "image"),
    query=("query",),
    positive=("image",),
)
_OWN = Format(
    own.reader,
    columns="query|positive|negatives?",
    required=("query", "positive"),
    query=("query",),
    positive=("positive",),
    is_own=True,
)
FORMATS: dict[FormatName, Format] = {
    "mmeb": _MMEB,
    "mmeb-hardneg": _MMEB._replace(reader=hard_negatives.reader),
    "colpali": _PAGES,
    "visrag": _PAGES,
    "tevatron": Format(
        tevatron.reader,
        columns="query_text|query_image|positive_document_ids|negative_document_ids",
        required=("query_text", "positive_document_ids"),
        query=("query_text", "query_image"),
        positive=("positive_document_ids",),
    ),
    "jsonl": _OWN,
    "parquet": _OWN,
    "columns": Format(positional.reader, columns=".*", is_own=True),
}


def guess(columns: tuple[str, ...], rows: Sequence[Row]) -> FormatName:
    """Tell the format from the columns and the first rows."""
    for name, format in FORMATS.items():
        if format.required and set(format.required) <= set(columns):
            if name == "mmeb" and _has_lists(columns, rows):
                return "mmeb-hardneg"
            return name
    return "columns"


def _has_lists(columns: tuple[str, ...], rows: Sequence[Row]) -> bool:
    values = [row.get(column) for row in rows for column in ("neg_text", "neg_image_path")]
    return bool(hard_negatives.embedded_columns(columns)) or any(
        isinstance(value, list) or (isinstance(value, str) and re.match(r"\s*\[['\"\]]", value))
        for value in values
    )
