"""The folder of an index: its parts, opened together; one writer, and states for readers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metaembed.errors import IndexFormatError
from metaembed.index.catalog import Catalog, Item
from metaembed.index.disk import damaged, sync_folder, unwritable, write_lock
from metaembed.index.filters import Condition
from metaembed.index.manifest import Manifest, read_manifest, write_manifest
from metaembed.index.segments import Rows, Segment, Segments

MANIFEST, CATALOG, SEGMENTS, LOCK = "manifest.json", "catalog.sqlite", "segments", "lock"


class Snapshot(NamedTuple):
    """One state of the catalog, or the part of it that passes a filter."""

    version: int
    rows: Rows
    segments: dict[int, Segment]


class Store:
    """An open folder. Reads through one connection; each change opens its own."""

    def __init__(self, path: Path):
        """Raises `IndexFormatError` unless the files are there and have their sizes."""
        self.path = path
        self.name = path.name
        self.manifest: Manifest = read_manifest(path / MANIFEST)
        if not (path / SEGMENTS).is_dir():
            raise damaged(self.name, f"its folder {SEGMENTS!r} is missing")
        self.segments = Segments(path / SEGMENTS, self.manifest)
        self.catalog = Catalog(path / CATALOG)
        self._cached: Snapshot | None = None
        try:
            with self.catalog.reading():
                self.catalog.num_items()
                for segment in self.catalog.segments().values():
                    self.segments.check(segment)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> "Store":
        """Raises `IndexFormatError` when `path` is a file or a folder with anything in it."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise FileExistsError
            (path / SEGMENTS).mkdir()
            Catalog.create(path / CATALOG)
            # Last: a folder without a manifest is not an index yet.
            write_manifest(path / MANIFEST, manifest)
            sync_folder(path.parent)
        except (FileExistsError, NotADirectoryError):
            raise IndexFormatError(
                f"{path} exists already and is not an empty folder. "
                "Choose another path, or open it if it is an index."
            ) from None
        except OSError as error:
            raise unwritable(path.name, error) from None
        return cls(path)

    def close(self) -> None:
        self.catalog.close()
        self.segments.forget_all_but(())
        self._cached = None

    def reading(self) -> AbstractContextManager[None]:
        """See one state of the catalog throughout; nobody commits meanwhile."""
        return self.catalog.reading()

    def snapshot(self, condition: Condition | None = None) -> Snapshot:
        """The current rows that pass a filter; the catalog is read again only if it changed."""
        with self.reading():
            version = self.catalog.version()
            if self._cached is None or self._cached.version != version:
                segments = self.catalog.segments()
                self._cached = Snapshot(version, self.catalog.rows(), segments)
                self.segments.forget_all_but(segments)
            snapshot = self._cached
            if condition is None:
                return snapshot
            matching = self.catalog.matching(condition)
        chosen = np.searchsorted(snapshot.rows.sequence, matching)
        return snapshot._replace(rows=snapshot.rows[chosen])

    def is_outdated(self, snapshot: Snapshot) -> bool:
        with self.reading():
            return self.catalog.version() != snapshot.version

    @contextmanager
    def writing(self) -> Iterator[Catalog]:
        """Be the one writer, on a connection whose changes this block commits.

        Readers of this store go on meanwhile. `IndexFormatError` when somebody else writes.
        """
        with self.reading():
            pass  # refuse a closed store
        with write_lock(self.path / LOCK, of=self.name):
            catalog = Catalog(self.path / CATALOG)
            try:
                with catalog.writing():
                    # What a crashed writer left behind.
                    self.segments.remove_all_but(catalog.segments())
                    yield catalog
                    kept = catalog.segments()
                self.segments.remove_all_but(kept)
            finally:
                catalog.close()

    def append(self, catalog: Catalog, vectors: np.ndarray, items: Sequence[Item]) -> None:
        """Write a segment of `vectors` (items, num_vectors, dim), then name it in `catalog`."""
        segment = self.segments.write(
            catalog.next_segment(), len(items), lambda start, stop: [vectors[:, start:stop]]
        )
        catalog.add_segment(segment)
        catalog.add_items(segment.number, items)

    def compact(self) -> None:
        with self.writing() as catalog:
            rows, segments = catalog.rows(), catalog.segments()
            if len(segments) <= 1 and len(rows) == num_rows(segments):
                return
            for segment in segments.values():
                self.segments.require_sound(segment)  # or damage would get a new checksum
            if len(rows):
                blocks = partial(self.segments.read_blocks, rows, segments)
                merged = self.segments.write(catalog.next_segment(), len(rows), blocks)
                catalog.add_segment(merged)
                catalog.move_items(merged.number, rows.sequence.tolist())
            catalog.remove_empty_segments()

    def problems(self) -> list[str]:
        """Read every byte and describe each problem in a line."""
        with self.reading():
            problems = self.catalog.problems()
            segments = self.catalog.segments()
        found = {number: self.segments.problems(one) for number, one in segments.items()}
        with self.reading():
            current = self.catalog.segments()  # without those that were compacted meanwhile
        return problems + [line for number in found if number in current for line in found[number]]


def num_rows(segments: Mapping[int, Segment]) -> int:
    return sum(segment.num_rows for segment in segments.values())
