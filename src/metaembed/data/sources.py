"""Opening a source of training data: a sequence of examples, whatever form it is published in."""

import logging
import re
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from metaembed.data.examples import Example
from metaembed.data.formats import FORMATS, Format, guess
from metaembed.data.formats.fields import Context, Pictures, RowReader
from metaembed.data.rows import Rows, Stored, find_rows, is_local
from metaembed.data.settings import FormatName, SourceSettings
from metaembed.data.split import stable_hash
from metaembed.errors import ItemError, RecipeError

logger = logging.getLogger(__name__)

DEFAULT_SPLIT = "original"
"""MMEB-train's. Its split `train` is stale; the other data sets have no split of this name."""

_SPLIT = re.compile(r"(?P<name>[^\[\]]*)(\[(?P<start>-?\d*):(?P<stop>-?\d*)\])?")


class Source:
    """Examples by number. Reads a row when it is asked for, and opens no picture.

    Use `open_source`. Worker processes may share it.
    """

    def __init__(
        self,
        name: str,
        rows: Rows,
        read: RowReader,
        *,
        format: FormatName,
        picked: Int64[np.ndarray, " N"] | None = None,
    ) -> None:
        self.name = name
        self.format = format
        self._rows = rows
        self._read = read
        self._picked = picked

    def __len__(self) -> int:
        return len(self._rows) if self._picked is None else len(self._picked)

    def __getitem__(self, index: int) -> Example:
        """Raises `ItemError` that names file, row and column of what is wrong with it."""
        example = self.unchecked(index)
        for side, found in (("query", example.query), ("positive", example.positive)):
            if found.is_empty:
                raise ItemError(f"{self.where(index)}: the {side} has neither text nor picture.")
        return example

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self):,} examples)"

    def unchecked(self, index: int) -> Example:
        """As `source[index]`, but the query and the positive may be empty."""
        row = self._row(index)
        found = self._rows[row]
        try:
            return self._read(found)
        except ItemError as error:
            raise ItemError(f"{self._rows.where(row)}: {error}") from None

    def raw(self, index: int) -> dict[str, object]:
        """The row as it is stored, less the columns that its format does not read."""
        return self._rows[self._row(index)]

    def where(self, index: int) -> str:
        """Name the file and the row of an example."""
        return self._rows.where(self._row(index))

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"Source {self.name!r} has {len(self):,} examples; {index} is none.")
        return index if self._picked is None else int(self._picked[index])


def open_source(
    settings: SourceSettings,
    *,
    seed: int = 0,
    keep_empty: bool = False,
    cache_dir: Path | None = None,
) -> Source:
    """Open a source from a file, a folder or the hub.

    Rows of Parquet whose query or positive is empty are left out, unless `keep_empty`, and a
    sample of `max_rows` is drawn by `seed`. `cache_dir` is where `datasets` puts what it reads
    Parquet and hub data sets into; default: its own. Raises `RecipeError`.
    """
    split, part = parse_split(settings.split)
    plain = settings.model_copy(update={"split": split, "config": _config(settings)})
    stored = find_rows(plain, default_split=DEFAULT_SPLIT, cache_dir=cache_dir)
    name = settings.format or guess(stored.columns, stored.head)
    format = _required(name, stored, settings)
    rows = stored.open(format.columns)
    is_own = format.is_own and is_local(settings.path)
    pictures = Pictures(_image_folder(settings, is_own=is_own), is_own=is_own)
    read = format.reader(Context(plain, rows.columns, pictures, cache_dir))
    picked = _picked(rows, format, part, keep_empty=keep_empty)
    picked = _sampled(picked, len(rows), settings, seed)
    return Source(settings.label, rows, read, format=name, picked=picked)


def parse_split(split: str | None) -> tuple[str | None, slice]:
    """
    >>> parse_split("original[:-100]"), parse_split("[10:]")
    (('original', slice(None, -100, None)), (None, slice(10, None, None)))
    """
    match = _SPLIT.fullmatch(split or "")
    if match is None:
        raise RecipeError(f"Split {split!r} is not of the form NAME or NAME[START:STOP].")
    start, stop = (int(match[key]) if match[key] else None for key in ("start", "stop"))
    return match["name"] or None, slice(start, stop)


def _config(settings: SourceSettings) -> str | None:
    """The settings' own, or `queries` where a folder has those and a corpus."""
    folder = Path(settings.path)
    if settings.config is not None or settings.format not in (None, "tevatron"):
        return settings.config
    has_both = folder.is_dir() and all(
        any(folder.glob(f"{name}*")) for name in ("queries", "corpus")
    )
    return "queries" if has_both else None


def _required(name: FormatName, stored: Stored, settings: SourceSettings) -> Format:
    format = FORMATS[name]
    if missing := [column for column in format.required if column not in stored.columns]:
        raise RecipeError(
            f"Source {settings.label!r} has the columns {list(stored.columns)}; the format {name} "
            f"needs {', '.join(missing)} too. Set format to another, or leave it out."
        )
    return format


def _image_folder(settings: SourceSettings, *, is_own: bool) -> Path | None:
    """The folder that paths of pictures are relative to."""
    if settings.image_dir is not None:
        if not settings.image_dir.is_dir():
            raise RecipeError(f"There is no image_dir {str(settings.image_dir)!r}.")
        return settings.image_dir
    if not is_local(settings.path):
        return None
    path = Path(settings.path).absolute()
    folder = path if path.is_dir() else path.parent
    for candidate in () if is_own else (folder, *folder.parents[:2]):
        if (candidate / "images").is_dir():
            return candidate
        if (candidate / "images_zip").is_dir():
            raise RecipeError(
                f"{str(candidate)!r} has its pictures in images_zip; unpack them first: "
                "unzip 'images_zip/*.zip' -d images."
            )
    return folder


def _picked(
    rows: Rows, format: Format, part: slice, *, keep_empty: bool
) -> Int64[np.ndarray, " N"] | None:
    """The numbers of the rows that are used; None for all of them."""
    masks = [] if keep_empty else [rows.filled(format.query), rows.filled(format.positive)]
    told = [mask for mask in masks if mask is not None]
    if not told and part == slice(None):
        return None
    numbers = np.arange(len(rows), dtype=np.int64)[part]
    if told:
        kept = numbers[np.all(told, axis=0)[part]]
        if len(kept) < len(numbers):
            logger.warning(
                "Left out %d rows whose query or positive is empty", len(numbers) - len(kept)
            )
        numbers = kept
    return numbers


def _sampled(
    picked: Int64[np.ndarray, " N"] | None, count: int, settings: SourceSettings, seed: int
) -> Int64[np.ndarray, " N"] | None:
    """Draw `max_rows` of the rows, and leave them in order."""
    numbers = np.arange(count, dtype=np.int64) if picked is None else picked
    if settings.max_rows is None or settings.max_rows >= len(numbers):
        return picked
    own = int.from_bytes(stable_hash(settings.label)[:4], "little")
    chosen = np.random.default_rng([seed, own]).permutation(len(numbers))[: settings.max_rows]
    chosen.sort()
    return numbers[chosen]
