"""The rows of a source as they are stored: Parquet, Arrow, JSON lines, or a hub data set.

Nothing is held in memory: Parquet and hub data sets are read through the memory-mapped cache of
`datasets`, JSON lines by the place where each begins.
"""

import contextlib
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Int64

from metaembed.data.files import choose_split, find_files, require_whole
from metaembed.data.settings import SourceSettings
from metaembed.errors import ItemError, RecipeError, one_line
from metaembed.files import reason_of

if TYPE_CHECKING:
    from datasets import Dataset

CHUNK = 2**24
"""Bytes of JSON lines that are looked through at a time."""
BATCH = 10_000
"""Rows whose columns are looked through at a time."""
HEAD = 20
"""Rows from which the format is told."""


class Rows(Protocol):
    """Rows by number, from 0."""

    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> dict[str, Any]: ...

    def scan(self, *columns: str) -> Iterator[dict[str, Any]]:
        """All rows in order, with these columns only."""
        ...

    def where(self, row: int) -> str:
        """Name the file and the place in it, counted from 1."""
        ...

    def filled(self, columns: tuple[str, ...]) -> Bool[np.ndarray, " N"] | None:
        """Which rows hold something in at least one of the columns; None: not told cheaply."""
        ...


class Stored(NamedTuple):
    """What was found, before it is known which of its columns are needed."""

    columns: tuple[str, ...]
    head: list[dict[str, Any]]
    """The texts, and lists of texts, of the first rows."""
    open: Callable[[str], Rows]
    """Opens the columns that match a regular expression."""


def is_local(path: str) -> bool:
    """Tell a file or folder from a hub id."""
    return Path(path).exists()


def find_rows(
    settings: SourceSettings, *, default_split: str | None = None, cache_dir: Path | None = None
) -> Stored:
    """Find the rows of a source; raises `RecipeError` that says what is missing.

    `default_split` is taken where the settings name none.
    """
    if not is_local(settings.path):
        return _of_dataset(_from_hub(settings, default_split, cache_dir), settings.label)
    path = Path(settings.path)
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _of_dataset(_from_disk(path, settings.split, default_split), str(path))
    files = find_files(path, config=settings.config, split=settings.split, default=default_split)
    if files[0].suffix == ".parquet":
        return _of_parquet(files, cache_dir)
    rows = JsonLines(files)
    if not len(rows):
        raise RecipeError(f"{settings.path!r} has no rows.")
    return Stored(rows.columns, rows.head(), lambda _: rows)


class ArrowRows:
    """A memory-mapped `datasets.Dataset`; pictures stay the bytes that they are stored as."""

    def __init__(self, dataset: "Dataset", *, files: list[tuple[str, int]]) -> None:
        """`files` are the names and numbers of rows of what it was read from."""
        self.columns = tuple(dataset.column_names)
        self._dataset = dataset.with_format("arrow")
        self._files = [name for name, _ in files]
        self._ends = list(accumulate(count for _, count in files))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        found: dict[str, Any] = self._dataset[row].to_pylist()[0]
        return found

    def scan(self, *columns: str) -> Iterator[dict[str, Any]]:
        narrow = self._dataset.select_columns([c for c in self.columns if c in columns])
        for batch in narrow.iter(batch_size=BATCH):
            yield from batch.to_pylist()

    def where(self, row: int) -> str:
        file = bisect_right(self._ends, row)
        return f"{self._files[file]}, row {row + 1 - (self._ends[file - 1] if file else 0)}"

    def filled(self, columns: tuple[str, ...]) -> Bool[np.ndarray, " N"] | None:
        present = [column for column in columns if column in self.columns]
        if not present:
            return None
        narrow = self._dataset.select_columns(present)
        masks = [np.zeros(0, bool)]
        for batch in narrow.iter(batch_size=BATCH):
            masks.append(np.any([_filled(batch[column]) for column in present], axis=0))
        return np.concatenate(masks)


def _filled(column: Any) -> Bool[np.ndarray, " N"]:
    """Which values of an Arrow column are neither null, nor empty, nor blank."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        mask = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        mask = pc.greater(pc.list_value_length(column), 0)
    elif pa.types.is_struct(kind):
        fields = [_filled(pc.struct_field(column, [n])) for n in range(kind.num_fields)]
        return np.any(fields, axis=0)
    else:
        mask = pc.is_valid(column)
    return np.asarray(pc.fill_null(mask, False).to_numpy(zero_copy_only=False), dtype=bool)


class JsonLines:
    """One JSON object a line. Holds 16 bytes a row; the files are opened for each row anew."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._spans = [_line_spans(file) for file in files]
        self._ends = list(accumulate(map(len, self._spans)))
        self.columns = tuple(dict.fromkeys(column for row in self.head() for column in row))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, row: int) -> dict[str, Any]:
        file, place = self._locate(row)
        start, stop, _ = self._spans[file][place].tolist()
        try:
            with self._files[file].open("rb") as lines:
                lines.seek(start)
                found = json.loads(lines.read(stop - start))
        except OSError as error:
            raise ItemError(f"{self.where(row)}: cannot be read: {reason_of(error)}.") from None
        except (ValueError, RecursionError) as error:
            raise ItemError(f"{self.where(row)}: not valid JSON: {error}.") from None
        if not isinstance(found, dict):
            raise ItemError(f"{self.where(row)}: a row has to be a JSON object.")
        return found

    def head(self) -> list[dict[str, Any]]:
        """The first rows, less those that are no objects."""
        found = []
        for row in range(min(len(self), HEAD)):
            with contextlib.suppress(ItemError):
                found.append(self[row])
        return found

    def scan(self, *columns: str) -> Iterator[dict[str, Any]]:
        for row in range(len(self)):
            found = self[row]
            yield {column: found.get(column) for column in columns}

    def where(self, row: int) -> str:
        file, place = self._locate(row)
        return f"{self._files[file]}, line {self._spans[file][place][2]}"

    def filled(self, columns: tuple[str, ...]) -> None:  # noqa: ARG002  (as in Rows)
        return None

    def _locate(self, row: int) -> tuple[int, int]:
        file = bisect_right(self._ends, row)
        return file, row - (self._ends[file - 1] if file else 0)


def _line_spans(file: Path) -> Int64[np.ndarray, "N 3"]:
    """Start and stop in bytes, and number from 1, of every line that is not blank."""
    breaks, size = [np.full(1, -1, np.int64)], 0
    try:
        with file.open("rb") as lines:
            while chunk := lines.read(CHUNK):
                breaks.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + size)
                size += len(chunk)
    except OSError as error:
        raise RecipeError(f"{str(file)!r} cannot be read: {reason_of(error)}.") from None
    ends = np.concatenate([*breaks, np.full(1, size, np.int64)])
    spans = np.stack([ends[:-1] + 1, ends[1:], np.arange(1, len(ends))], axis=1)
    lengths = spans[:, 1] - spans[:, 0]
    lone = np.flatnonzero(lengths == 1)
    if len(lone):
        is_return = np.memmap(file, np.uint8, mode="r")[spans[lone, 0]] == 13
        lengths[lone[is_return]] = 0
    return spans[lengths > 0]


def _of_parquet(files: list[Path], cache_dir: Path | None) -> Stored:
    _datasets()
    import pyarrow.parquet as pq

    sizes = {file: size for file, size in zip(files, require_whole(files), strict=True) if size}
    if not sizes:
        raise RecipeError(f"{str(files[0])!r} has no rows.")
    files = list(sizes)  # those without rows, which datasets does not read
    with pq.ParquetFile(files[0]) as first:
        schema = first.schema_arrow
        texts = [field.name for field in schema if _is_text(field.type)]
        batch = next(first.iter_batches(batch_size=HEAD, columns=texts), None)

    def open_columns(columns: str) -> Rows:
        names = [name for name in schema.names if re.fullmatch(columns, name)]
        dataset = _from_parquet(files, names, cache_dir)
        return ArrowRows(dataset, files=[(str(file), size) for file, size in sizes.items()])

    head = [] if batch is None else batch.to_pylist()
    return Stored(tuple(schema.names), head, open_columns)


def _of_dataset(dataset: "Dataset", name: str) -> Stored:
    schema = dataset.features.arrow_schema
    texts = [field.name for field in schema if _is_text(field.type)]
    head = dataset.select_columns(texts).with_format("arrow")[:HEAD].to_pylist()

    def open_columns(columns: str) -> Rows:
        names = [name for name in schema.names if re.fullmatch(columns, name)]
        return ArrowRows(dataset.select_columns(names), files=[(name, len(dataset))])

    return Stored(tuple(schema.names), head, open_columns)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _from_parquet(files: list[Path], columns: list[str], cache_dir: Path | None) -> "Dataset":
    datasets = _datasets()
    try:
        return datasets.Dataset.from_parquet(
            [str(file) for file in files],
            columns=columns,
            cache_dir=None if cache_dir is None else str(cache_dir),
        )
    except Exception as error:  # whatever pyarrow and the builder raise, wrapped several times
        cause = error.__cause__ or error
        raise RecipeError(
            f"The Parquet files in {str(files[0].parent)!r} cannot be read together: "
            f"{one_line(cause, limit=300)}."
        ) from None


def _from_disk(path: Path, split: str | None, default: str | None) -> "Dataset":
    datasets = _datasets()
    try:
        dataset = datasets.load_from_disk(str(path))
    except Exception as error:
        raise RecipeError(f"{str(path)!r} cannot be read: {one_line(error, limit=300)}.") from None
    if not isinstance(dataset, dict):
        return dataset
    return dataset[choose_split(list(dataset), split, default=default, of=str(path))]


def _from_hub(settings: SourceSettings, default: str | None, cache_dir: Path | None) -> "Dataset":
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", settings.path):
        raise RecipeError(f"There is no file or folder {settings.path!r}.")
    datasets = _datasets()
    where: dict[str, Any] = {"revision": settings.revision}
    try:
        names = datasets.get_dataset_split_names(settings.path, settings.config, **where)
        chosen = choose_split(names, settings.split, default=default, of=settings.path)
        where["cache_dir"] = None if cache_dir is None else str(cache_dir)
        return datasets.load_dataset(settings.path, settings.config, split=chosen, **where)
    except RecipeError:
        raise
    except Exception as error:  # the hub's, the network's and the builder's
        raise RecipeError(
            f"There is no file or folder {settings.path!r}, and the hub's data set of that name "
            f"cannot be had: {one_line(error, limit=300)}."
        ) from None


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise RecipeError(
            "Parquet files and hub data sets need datasets; install it with "
            "pip install 'metaembed[train]'."
        ) from None
    return datasets
