"""How an index is: its size, and what is wrong with it."""

from collections.abc import Callable
from typing import NamedTuple

from metaembed.index.checks import verify
from metaembed.index.disk import folder_size
from metaembed.index.segments import num_rows
from metaembed.index.store import Store


class IndexStats(NamedTuple):
    items: int
    deleted: int
    """Rows on disk that `compact` would drop."""
    segments: int
    bytes_on_disk: int
    bytes_per_item: int
    """Of all the vectors of one item."""


def stats(store: Store) -> IndexStats:
    with store.reading():
        items = store.catalog.num_items()
        segments = store.catalog.segments()
    return IndexStats(
        items=items,
        deleted=num_rows(segments.values()) - items,
        segments=len(segments),
        bytes_on_disk=folder_size(store.path),
        bytes_per_item=store.manifest.num_bytes(store.manifest.limit.candidate),
    )


def problems(store: Store, progress: Callable[[int, int], None]) -> list[str]:
    """Read every byte and describe each problem in a line; see `Index.verify`."""
    with store.reading():
        pass  # refuse a closed store
    return verify(store.path, progress)
