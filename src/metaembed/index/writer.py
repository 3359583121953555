"""What a writer does to an index: one commit for each change, after its vectors are on disk."""

import reprlib
from collections.abc import Sequence

from metaembed.errors import IndexMismatchError
from metaembed.index.catalog import Item
from metaembed.index.merging import write_again, write_new
from metaembed.index.records import id_list, is_id
from metaembed.index.segments import Blocks, num_rows
from metaembed.index.snapshot import Snapshot
from metaembed.index.store import Store


def insert(store: Store, items: Sequence[Item], blocks: Blocks, *, replace: bool) -> None:
    """Append items whose vectors `blocks` gives; durable when it returns.

    Raises `IndexMismatchError` for an id that is there already, unless they may be replaced.
    """
    with store.writing() as catalog:
        known, sequences = catalog.sequences_of([item.id for item in items])
        if known and not replace:
            raise known_ids(store, known, "Use upsert to replace them.")
        if items:
            first = catalog.next_sequence()
            written = write_new(store, catalog, len(items), blocks, first=first, replaced=sequences)
            catalog.remove_items(known)
            written.record(catalog)
            catalog.add_items(first, items)


def delete(store: Store, ids: Sequence[str]) -> int:
    """Remove items and return how many there were; see `Index.delete`."""
    known = {id for id in id_list(ids) if is_id(id)}
    with store.writing() as catalog:
        return catalog.remove_items(known)


def compact(store: Store) -> None:
    """Write the live rows as one segment; see `Index.compact`."""
    with store.writing() as catalog:
        snapshot = Snapshot(store.name, 0, catalog.entries({}))
        segments = [entry.segment for entry in snapshot.entries]
        if len(segments) <= 1 and len(snapshot) == num_rows(segments):
            return
        if not len(snapshot):
            catalog.remove_segments(snapshot.entries)
            return
        write_again(store, catalog, snapshot).record(catalog)
        catalog.texts().optimize()


def known_ids(store: Store, known: Sequence[str], advice: str) -> IndexMismatchError:
    some = ", ".join(map(reprlib.repr, known[:3]))
    return IndexMismatchError(
        f"Index {store.name!r} has {len(known)} of these ids already, for example {some}. {advice}"
    )
