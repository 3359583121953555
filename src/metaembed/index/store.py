"""The folder of an index: its parts, opened together; one writer, and states for readers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from metaembed.errors import IndexMismatchError
from metaembed.index.catalog import Catalog
from metaembed.index.columns import Columns
from metaembed.index.disk import damaged, require_folder, write_lock
from metaembed.index.filters import Condition, Tree, as_sql
from metaembed.index.folder import CATALOG, LOCK, MANIFEST, SEGMENTS
from metaembed.index.layout import Plane
from metaembed.index.manifest import Manifest, read_manifest
from metaembed.index.segments import Segment, Segments
from metaembed.index.snapshot import Snapshot
from metaembed.kernels import Candidates, Part
from metaembed.storage import Stored

MAX_FILTERED = 16
"""Filters whose items are remembered until the catalog changes."""


class Store:
    """An open folder. Reads through one connection; each change opens its own."""

    def __init__(self, path: Path):
        """Raises `IndexFormatError` unless the files are there and have their sizes."""
        self.path = path
        self.name = path.name
        self.manifest: Manifest = read_manifest(path / MANIFEST)
        require_folder(path / SEGMENTS, of=self.name)
        self.segments = Segments(path / SEGMENTS, self.manifest)
        self.catalog = Catalog(path / CATALOG)
        self._columns = Columns()
        self._catalog_file = path / CATALOG
        self._cached: Snapshot | None = None
        self._stamp: tuple[int, ...] | None = None
        """What the catalog's file looked like when `_cached` was read."""
        self._filtered: dict[Condition, Snapshot] = {}
        """Of `_cached`; changed within a transaction only, and replaced with it."""
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

    def require_fingerprint(self, fingerprint: str) -> None:
        """Close the store and raise `IndexMismatchError` unless its vectors are of that model."""
        if fingerprint != self.manifest.fingerprint:
            self.close()
            raise IndexMismatchError(
                f"Index {self.name!r} was built with model {self.manifest.model!r} (fingerprint "
                f"{self.manifest.fingerprint!r}), not with the one of fingerprint "
                f"{fingerprint!r}. Open it with that model or rebuild."
            )

    def close(self) -> None:
        self.catalog.close()
        self.segments.forget_all_but(())
        self._cached = self._stamp = None
        self._filtered = {}
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
                self._stamp = None
                self._filtered = {}
                self._cached = snapshot = self._read_snapshot(version, snapshot)
                self._stamp = self._look()
            if filter is None:
                return snapshot
            key = as_sql(filter)  # trees of different kinds can be equal: they are tuples
            if key not in self._filtered:
                while len(self._filtered) >= MAX_FILTERED:
                    del self._filtered[next(iter(self._filtered))]
                self._filtered[key] = self._passing(snapshot, filter)
            return self._filtered[key]

    def remembered(self, filter: Tree | None = None) -> Snapshot | None:
        """The rows that passed a filter last, if the catalog's file looks as it did then.

        It may have changed all the same, within a tick of the file system's clock.
        """
        snapshot, stamp, filtered = self._cached, self._stamp, self._filtered
        if snapshot is None or stamp is None or stamp != self._look():
            return None
        return snapshot if filter is None else filtered.get(as_sql(filter))

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self._catalog_file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def catalog_differs(self, snapshot: Snapshot) -> bool:
        """Within a transaction: whether the snapshot is of another state."""
        return self.catalog.version() != snapshot.version

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
            return self.catalog_differs(snapshot)

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
