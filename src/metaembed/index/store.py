"""The folder of an index: its parts, opened together; one writer, and states for readers."""

import reprlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index.catalog import Catalog, Item
from metaembed.index.checks import catalog_problems
from metaembed.index.columns import Columns
from metaembed.index.disk import damaged, sync_folder, unwritable, write_lock
from metaembed.index.filters import Condition, Tree, as_sql
from metaembed.index.layout import Plane
from metaembed.index.manifest import Manifest, read_manifest, write_manifest
from metaembed.index.reading import stored_blocks
from metaembed.index.segments import Blocks, Segment, Segments
from metaembed.index.snapshot import Snapshot
from metaembed.kernels import Candidates, Part
from metaembed.storage import Stored

MANIFEST, CATALOG, SEGMENTS, LOCK = "manifest.json", "catalog.sqlite", "segments", "lock"

MAX_FILTERED = 16
"""Filters whose items are remembered until the catalog changes."""


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
        self._columns = Columns()
        self._cached: Snapshot | None = None
        self._filtered: dict[Condition, Snapshot] = {}
        """Of `_cached`; looked at within a transaction only, as that is."""
        self._ready: WeakKeyDictionary[Snapshot, dict[tuple[int, bool], Candidates]]
        self._ready = WeakKeyDictionary()
        self._errors: tuple[tuple[Snapshot, int], np.ndarray] | None = None
        try:
            with self.catalog.reading():
                self.catalog.num_items()
                for segment in self.catalog.segments().values():
                    self.segments.check(segment)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(
        cls,
        path: Path,
        manifest: Manifest,
        fill: Callable[[Catalog, Segments], None] | None = None,
    ) -> "Store":
        """Make an index, with what `fill` puts into it, or none at all.

        Raises `IndexFormatError` when `path` is a file or a folder with anything in it.
        """
        existed = path.is_dir()
        try:
            new_parents = [path.parent]  # folders that get a new name in them
            while not new_parents[-1].exists():
                new_parents.append(new_parents[-1].parent)
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise FileExistsError
        except (FileExistsError, NotADirectoryError):
            raise IndexFormatError(
                f"{path} exists already and is not an empty folder. "
                "Choose another path, or open it if it is an index."
            ) from None
        except OSError as error:
            raise unwritable(path.name, error) from None
        try:
            (path / SEGMENTS).mkdir()
            Catalog.create(path / CATALOG)
            if fill is not None:
                with closing(Catalog(path / CATALOG)) as catalog, catalog.writing():
                    fill(catalog, Segments(path / SEGMENTS, manifest))
            # Last: a folder without a manifest is not an index yet.
            write_manifest(path / MANIFEST, manifest)
            for parent in new_parents:
                sync_folder(parent)
        except BaseException as error:
            _remove_created(path, keep_folder=existed)
            if isinstance(error, OSError):
                raise unwritable(path.name, error) from None
            raise
        return cls(path)

    def close(self) -> None:
        self.catalog.close()
        self.segments.forget_all_but(())
        self._cached = None
        self._filtered.clear()
        self._ready.clear()
        self._errors = None

    def reading(self) -> AbstractContextManager[None]:
        """See one state of the catalog throughout; nobody commits meanwhile."""
        return self.catalog.reading()

    def snapshot(self, filter: Tree | None = None) -> Snapshot:
        """The current rows that pass a filter; the catalog is read again only if it changed."""
        with self.reading():
            version = self.catalog.version()
            snapshot = self._cached
            if snapshot is None or snapshot.version != version:
                self._cached = snapshot = self._read_snapshot(version, snapshot)
                self._filtered.clear()
            if filter is None:
                return snapshot
            key = as_sql(filter)  # trees of different kinds can be equal: they are tuples
            if key not in self._filtered:
                while len(self._filtered) >= MAX_FILTERED:
                    del self._filtered[next(iter(self._filtered))]
                self._filtered[key] = self._passing(snapshot, filter)
            return self._filtered[key]

    def _passing(self, snapshot: Snapshot, filter: Tree) -> Snapshot:
        mask = self._columns.mask(filter, snapshot.sequences, self.catalog.field_values)
        if mask is None:
            return snapshot.select(self.catalog.matching(as_sql(filter)))
        return snapshot.where(mask)

    def _read_snapshot(self, version: int, old: Snapshot | None) -> Snapshot:
        known = {} if old is None else {entry.segment.number: entry for entry in old.entries}
        entries = self.catalog.entries(known)
        snapshot = Snapshot(self.name, version, entries)
        # A glance, since looking at every item would take as long as there are items.
        ends = np.array([0, len(snapshot) - 1] if len(snapshot) else [], np.int64)
        if not np.array_equal(snapshot.sequences_at(ends), self.catalog.ends()):
            raise damaged(self.name, "its first or last item has no row, or a row has no item")
        self.segments.forget_all_but({entry.segment.number for entry in entries})
        return snapshot

    def candidates(
        self, snapshot: Snapshot, num_vectors: int, *, sketch: bool = False
    ) -> Candidates:
        """The first `num_vectors` vectors of the items of a snapshot, mapped and made ready.

        Of their sketch, if `sketch`. Positions in them are those of the snapshot.
        """
        ready = self._ready.setdefault(snapshot, {})
        key = num_vectors, sketch
        if key not in ready:
            ready[key] = Candidates(self._parts(snapshot, *key), r_c=num_vectors)
        return ready[key]

    def sketch_errors(self, snapshot: Snapshot, num_vectors: int) -> Float[np.ndarray, "items 2"]:
        """The largest miss of the sketch and its largest norm, of the items' first vectors.

        Of whole planes, so that it may be more than it need be. Float64.
        """
        key = snapshot, num_vectors
        if self._errors is None or self._errors[0] != key:
            planes = self.segments.planes(num_vectors)
            parts = [np.empty((0, 2))]
            for entry in snapshot.entries:
                errors = [self.segments.sketch(entry.segment, plane).errors for plane in planes]
                largest = np.max([one for one in errors if one is not None], axis=0)
                parts.append(largest if entry.rows is None else largest[entry.rows])
            self._errors = key, np.concatenate(parts)
        return self._errors[1]

    def _parts(self, snapshot: Snapshot, num_vectors: int, sketch: bool) -> list[Part]:
        def stored(segment: Segment, plane: Plane) -> Stored:
            if sketch:
                return self.segments.sketch(segment, plane).stored
            return self.segments.stored(segment, plane)

        planes = self.segments.planes(num_vectors)
        return [
            Part(tuple(stored(entry.segment, plane) for plane in planes), entry.rows)
            for entry in snapshot.entries
            if len(entry)
        ]

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
                # On its own: whatever follows may take long and must not hold readers up.
                with catalog.writing():
                    catalog.upgrade()
                with catalog.writing():
                    # What a crashed writer left behind.
                    self.segments.remove_all_but(catalog.segments())
                    yield catalog
                    kept = catalog.segments()
                self.segments.remove_all_but(kept)
            finally:
                catalog.close()

    def insert(self, items: Sequence[Item], blocks: Blocks, *, replace: bool) -> None:
        """Append items whose vectors `blocks` gives, as one segment; durable when it returns.

        Raises `IndexMismatchError` for an id that is there already, unless they may be replaced.
        """
        ids = [item.id for item in items]
        with self.writing() as catalog:
            known = catalog.sequences_of(ids)[0]
            if known and not replace:
                raise self.known_ids(known, "Use upsert to replace them.")
            if items:
                segment = self.segments.write(catalog.next_segment(), len(items), blocks)
                first = catalog.next_sequence()
                catalog.remove_items(known)
                catalog.add_segment(segment, first, None)
                catalog.add_items(first, items)

    def known_ids(self, known: Sequence[str], advice: str) -> IndexMismatchError:
        some = ", ".join(map(reprlib.repr, known[:3]))
        return IndexMismatchError(
            f"Index {self.name!r} has {len(known)} of these ids already, for example {some}. "
            f"{advice}"
        )

    def compact(self) -> None:
        with self.writing() as catalog:
            snapshot = Snapshot(self.name, 0, catalog.entries({}))
            segments = [entry.segment for entry in snapshot.entries]
            if len(segments) <= 1 and len(snapshot) == num_rows(segments):
                return
            number, sequences = catalog.next_segment(), snapshot.sequences
            if not len(sequences):
                catalog.remove_segments()
                return
            blocks = self.sound_blocks(snapshot)
            merged = self.segments.write(number, len(sequences), blocks)
            catalog.remove_segments()
            first, last = int(sequences[0]), int(sequences[-1])
            is_gapless = last - first == len(sequences) - 1
            catalog.add_segment(merged, first, None if is_gapless else sequences)
            catalog.texts().optimize()

    def sound_blocks(self, snapshot: Snapshot) -> Blocks:
        """The vectors of a snapshot for another segment, after comparing all checksums.

        Or damage would get a new checksum there.
        """
        for entry in snapshot.entries:
            if len(entry):
                self.segments.require_sound(entry.segment)
        return lambda plane: stored_blocks(self.segments, snapshot.entries, plane)

    def problems(self, progress: Callable[[int, int], None]) -> list[str]:
        """Read every byte and describe each problem in a line; see `Index.verify`."""
        with self.reading():
            problems = catalog_problems(self.catalog)
            segments = self.catalog.segments()
        total = sum(file.num_bytes for one in segments.values() for file in one.files)
        done = 0

        def read(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            progress(done, total)

        found = {
            number: self.segments.problems(one, progress=read) for number, one in segments.items()
        }
        with self.reading():
            current = self.catalog.segments()  # without those that were compacted meanwhile
        return problems + [line for number in found if number in current for line in found[number]]


def num_rows(segments: Iterable[Segment]) -> int:
    return sum(segment.num_rows for segment in segments)


def _remove_created(path: Path, *, keep_folder: bool) -> None:
    """Take back what `create` has made."""
    shutil.rmtree(path / SEGMENTS, ignore_errors=True)
    with suppress(OSError):
        for name in (MANIFEST, f"{MANIFEST}.tmp", CATALOG, f"{CATALOG}-journal"):
            (path / name).unlink(missing_ok=True)
        if not keep_folder:
            path.rmdir()
