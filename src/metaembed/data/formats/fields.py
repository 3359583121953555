"""Reading the fields of a row: texts, pictures, lists."""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from metaembed.data.examples import Example, Picture, Side, normalised
from metaembed.data.settings import SourceSettings
from metaembed.errors import ItemError

Row = Mapping[str, Any]
RowReader = Callable[[Row], Example]

MAX_LITERAL = 2**20
"""Characters of a string that holds a Python list; mined negatives are a hundredth of that."""
MAX_LISTED = 1_000
"""Hard negatives in one row."""


class Pictures(NamedTuple):
    """Where the pictures of a source are."""

    folder: Path | None
    """What paths are relative to; None: the source came without files."""
    is_own: bool = False
    """Whether paths may lead out of the folder. Those of a data set that somebody else wrote may
    not: it could make a run read any file."""

    def find(self, value: Any, column: str) -> Picture | None:
        """A picture from a path, the bytes of a file, or `{"bytes", "path"}` as in Parquet."""
        if isinstance(value, Mapping):
            content = value.get("bytes")
            value = value.get("path") if content is None else content
        if value is None or value in ("", b""):
            return None
        if isinstance(value, bytes):
            return Picture(content=value)
        if not isinstance(value, str):
            raise ItemError(
                f"Column {column!r} holds a {type(value).__name__}; a picture is a path or bytes."
            )
        return Picture(path=self.path(value, column))

    def path(self, value: str, column: str) -> Path:
        """Where the file is that a row names; it need not exist."""
        if value.lower().startswith(("http://", "https://", "s3://", "hf://")):
            raise ItemError(
                f"Column {column!r} has the URL {value!r}; download the picture and give its path."
            )
        absolute = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
        if not self.is_own and (absolute or ".." in PureWindowsPath(value).parts):
            raise ItemError(
                f"Column {column!r} has the path {value!r}, which leads out of the source's folder."
            )
        if self.folder is None and not absolute:
            raise ItemError(
                f"Column {column!r} has the path {value!r}; set image_dir to the folder that it is "
                "relative to."
            )
        return Path(value) if self.folder is None else self.folder / value


class Context(NamedTuple):
    """What a format needs to know of its source."""

    settings: SourceSettings
    columns: tuple[str, ...]
    pictures: Pictures
    cache_dir: Path | None = None


def text_field(row: Row, column: str) -> str | None:
    """The text of a column; None where the column is missing."""
    value = row.get(column)
    if value is None or isinstance(value, str):
        return value
    raise ItemError(f"Column {column!r} holds a {type(value).__name__}, not a text.")


def listed(value: Any, column: str) -> list[str]:
    """Texts from a list, or from a string that holds a Python list of them.

    >>> listed("['a', '']", "neg_text"), listed("", "neg_text")
    (['a', ''], [])
    """
    if isinstance(value, str):
        value = _literal(value, column) if value.lstrip().startswith("[") else value and [value]
    values = list(value or ())
    if len(values) > MAX_LISTED or not all(isinstance(one, str | None) for one in values):
        raise ItemError(f"Column {column!r} has to list at most {MAX_LISTED:,} texts.")
    return [one or "" for one in values]


def _literal(text: str, column: str) -> Any:
    if len(text) > MAX_LITERAL:
        raise ItemError(
            f"Column {column!r} has {len(text):,} characters; lists of at most {MAX_LITERAL:,} "
            "are read."
        )
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise ItemError(f"Column {column!r} holds {text[:60]!r}, which is not a Python list.")
    return value


def without(negatives: list[Side], positive: Side, limit: int) -> tuple[Side, ...]:
    """The first negatives that are there and are not the positive itself."""
    kept = [side for side in negatives if not side.is_empty and not _same(side, positive)]
    return tuple(kept[:limit])


def _same(one: Side, other: Side) -> bool:
    texts = [normalised(side.prompt() or "") for side in (one, other)]
    return texts[0] == texts[1] and one.picture == other.picture
