"""From index to index: shrunk copies in another storage type, and many indexes into one."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from metaembed.budget import Budget
from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index.catalog import Catalog, Item
from metaembed.index.disk import damaged, translated
from metaembed.index.folder import SEGMENTS, create_folder
from metaembed.index.manifest import IndexType, Manifest, SketchType, new_manifest
from metaembed.index.merging import full_size, sound_blocks, write_new
from metaembed.index.segments import Blocks, Segments
from metaembed.index.snapshot import Snapshot
from metaembed.index.store import Store
from metaembed.index.writer import known_ids

# Items wait here until their vectors are written. In a file of their own, since a change to the
# catalog that outgrows SQLite's cache locks readers out until it is committed.
STAGE = """CREATE TEMP TABLE incoming (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    metadata TEXT NOT NULL,
    text TEXT
)"""

ITEMS_AT_ONCE = 2**12
"""Ids, metadata and texts held in memory."""

SketchChoice = SketchType | Literal["keep"] | None


class Held:
    """A snapshot whose vectors can be read although other processes add and delete items.

    Additions delete small segments, so these are checked and mapped at once, and a mapped file
    stays. Full ones, which would take long, are deleted by compaction only.
    """

    def __init__(self, store: Store, snapshot: Snapshot):
        """Inside `Store.reading`, which makes the others wait."""
        self._snapshot = snapshot
        # Of its own, since the store forgets what is gone.
        self._segments = Segments(store.path / SEGMENTS, store.manifest)
        self._small = set()
        full = full_size(store)
        for entry in snapshot.entries:
            if len(entry) and entry.segment.num_rows < full:
                self._segments.require_sound(entry.segment)
                self._segments.map(entry.segment)
                self._small.add(entry.segment.number)

    def blocks(self) -> Blocks:
        """The vectors for another segment, after comparing the rest of the checksums."""
        return sound_blocks(self._segments, self._snapshot, self._small)


def copy(
    source: Store,
    path: Path,
    *,
    budget: Budget,
    dtype: IndexType | None,
    sketch: SketchChoice,
) -> Store:
    """Write the live items as a new index of one segment; see `Index.copy`."""
    # Unlike Path.resolve this takes links that lead nowhere, which are for the creation to refuse.
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(source.path)):
        raise IndexFormatError(f"{path} lies in the index that is copied. Choose another path.")
    manifest = _shrunk(source.manifest, budget, dtype=dtype, sketch=sketch)
    create_folder(path, manifest, partial(_fill, source))
    return Store(path)


def merge(target: Store, sources: Sequence[Store], *, replace: bool) -> int:
    """Append the live items of each source; see `Index.merge`."""
    for source in sources:
        _require_alike(target, source)
    return sum(_merge_one(target, source, replace=replace) for source in sources)


def _shrunk(
    manifest: Manifest, limit: Budget, *, dtype: IndexType | None, sketch: SketchChoice
) -> Manifest:
    groups = [
        Budget(min(group.query, limit.query), min(group.candidate, limit.candidate))
        for group in manifest.groups
    ]
    if dtype is None:
        # What int4 stands for, types by plane, is kept: without the plane in int4 it is int8.
        has_last_plane = limit.candidate > manifest.planes[-1][0]
        dtype = "int8" if manifest.dtype == "int4" and not has_last_plane else manifest.dtype
    return new_manifest(
        dim=manifest.dim,
        groups=list(dict.fromkeys(groups)),
        dtype=dtype,
        sketch=manifest.sketch if sketch == "keep" else sketch,
        model=manifest.model,
        fingerprint=manifest.fingerprint,
    )


def _fill(source: Store, catalog: Catalog, segments: Segments) -> None:
    with source.reading():
        snapshot = source.snapshot()
        items, first = _items(source, snapshot), 1
        while some := list(islice(items, ITEMS_AT_ONCE)):
            catalog.add_items(first, some)
            first += len(some)
        held = Held(source, snapshot)
    if len(snapshot):
        segment = segments.write(1, len(snapshot), held.blocks())
        catalog.add_segment(segment, 1, None)


def _merge_one(target: Store, source: Store, *, replace: bool) -> int:
    with target.writing() as catalog:
        with source.reading():
            snapshot = source.snapshot()
            _stage(catalog, _items(source, snapshot))
            held = Held(source, snapshot)
        known, sequences = _known_items(catalog)
        if known and not replace:
            raise known_ids(target, known, "Merge with replace=True to take the new ones.")
        if len(snapshot):
            blocks, first = held.blocks(), catalog.next_sequence()
            written = write_new(
                target, catalog, len(snapshot), blocks, first=first, replaced=sequences
            )
            catalog.remove_items_where("id IN (SELECT id FROM temp.incoming)")
            written.record(catalog)
            _add_staged(catalog, first)
    return len(snapshot)


def _stage(catalog: Catalog, items: Iterable[Item]) -> None:
    catalog.database.execute(STAGE)
    rows = ((row, *item) for row, item in enumerate(items))
    catalog.database.execute_many("INSERT INTO temp.incoming VALUES (?, ?, ?, ?)", rows)


def _known_items(catalog: Catalog) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """The ids and sequences of the items in the catalog that staged ones have the ids of."""
    found = catalog.database.execute(
        "SELECT id, sequence FROM temp.incoming JOIN items USING (id) ORDER BY row"
    ).fetchall()
    return [id for id, _ in found], np.array([sequence for _, sequence in found], np.int64)


def _add_staged(catalog: Catalog, first_sequence: int) -> None:
    """Append the staged items."""
    catalog.database.execute(
        "INSERT INTO items SELECT ? + row, id, metadata FROM temp.incoming ORDER BY row",
        first_sequence,
    )
    found = catalog.database.execute(
        "SELECT ? + row, text FROM temp.incoming WHERE text IS NOT NULL ORDER BY row",
        first_sequence,
    )
    while some := found.fetchmany(ITEMS_AT_ONCE):
        catalog.add_texts(some)


def _items(store: Store, snapshot: Snapshot) -> Iterator[Item]:
    """Every item, after making sure that it is the one of the next live row."""
    expected = iter(snapshot.sequences.tolist())
    found, texts = store.catalog.all_items(), store.catalog.texts()
    while some := list(islice(found, ITEMS_AT_ONCE)):
        text_of = texts.text_of([sequence for sequence, _ in some])
        for sequence, item in some:
            if sequence != next(expected, None):
                raise damaged(store.name, "an item has no row, or a row no item")
            yield item._replace(text=text_of.get(sequence))
    if next(expected, None) is not None:
        raise damaged(store.name, "a row has no item")


def _require_alike(target: Store, source: Store) -> None:
    with translated(source.name):
        is_same = source.path.samefile(target.path)
    if is_same:
        raise IndexMismatchError(f"Index {target.name!r} cannot be merged into itself.")
    for field in ("dim", "groups", "fingerprint"):
        ours, theirs = getattr(target.manifest, field), getattr(source.manifest, field)
        if ours != theirs:
            raise IndexMismatchError(
                f"Index {source.name!r} has {field} {_show(theirs)} and {target.name!r} has "
                f"{_show(ours)}; only indexes that agree can be merged."
            )


def _show(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else repr(value)
