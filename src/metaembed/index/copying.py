"""From index to index: shrunk copies in another storage type, and many indexes into one."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from metaembed.budget import Budget
from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index.catalog import Catalog, Item
from metaembed.index.disk import damaged
from metaembed.index.manifest import IndexType, Manifest, SketchType, new_manifest
from metaembed.index.segments import Segments
from metaembed.index.snapshot import Snapshot
from metaembed.index.store import Store

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


def copy(
    source: Store,
    path: Path,
    *,
    budget: Budget,
    dtype: IndexType | None,
    sketch: SketchChoice,
) -> Store:
    """Write the live items as a new index of one segment; see `Index.copy`."""
    if path.resolve().is_relative_to(source.path.resolve()):
        raise IndexFormatError(f"{path} lies in the index that is copied. Choose another path.")
    return Store.create(
        path, _shrunk(source.manifest, budget, dtype=dtype, sketch=sketch), partial(_fill, source)
    )


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
    if len(snapshot):
        segment = segments.write(1, len(snapshot), source.sound_blocks(snapshot))
        catalog.add_segment(segment, 1, None)


def _merge_one(target: Store, source: Store, *, replace: bool) -> int:
    with target.writing() as catalog:
        with source.reading():
            snapshot = source.snapshot()
            _stage(catalog, _items(source, snapshot))
        known = _known_ids(catalog)
        if known and not replace:
            raise target.known_ids(known, "Merge with replace=True to take the new ones.")
        if len(snapshot):
            blocks = source.sound_blocks(snapshot)
            segment = target.segments.write(catalog.next_segment(), len(snapshot), blocks)
            first = catalog.next_sequence()
            _add_staged(catalog, first)
            catalog.add_segment(segment, first, None)
    return len(snapshot)


def _stage(catalog: Catalog, items: Iterable[Item]) -> None:
    catalog.database.execute(STAGE)
    rows = ((row, *item) for row, item in enumerate(items))
    catalog.database.execute_many("INSERT INTO temp.incoming VALUES (?, ?, ?, ?)", rows)


def _known_ids(catalog: Catalog) -> list[str]:
    """Of the staged items, those that are in the catalog already."""
    found = catalog.database.execute(
        "SELECT id FROM temp.incoming WHERE id IN (SELECT id FROM items) ORDER BY row"
    )
    return [id for (id,) in found]


def _add_staged(catalog: Catalog, first_sequence: int) -> None:
    """Append the staged items, in place of those that have their ids."""
    catalog.remove_items_where("id IN (SELECT id FROM temp.incoming)")
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
    if source.path.samefile(target.path):
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
