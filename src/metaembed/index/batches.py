"""Items on their way in: checked, and collected into segments of a useful size."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from metaembed.errors import IndexMismatchError
from metaembed.index.arrays import VectorsLike, as_vectors
from metaembed.index.catalog import Item
from metaembed.index.layout import Plane
from metaembed.index.merging import SEGMENT_BYTES
from metaembed.index.planes import Block, cut, encoded_blocks
from metaembed.index.records import checked_texts, encode_metadata, new_ids
from metaembed.index.store import Store
from metaembed.index.writer import insert, known_ids

Metadata = Sequence[Mapping[str, Any]] | None
TextList = Sequence[str | None] | None
RawBatch = (
    tuple[Sequence[str], VectorsLike, Metadata]
    | tuple[Sequence[str], VectorsLike, Metadata, TextList]
)
"""Ids, vectors (items, num_vectors, dim), metadata, and perhaps texts."""


class Batch(NamedTuple):
    items: list[Item]
    vectors: Float[np.ndarray, "N r dim"]
    """Of any float type."""

    def blocks(self, plane: Plane) -> Iterator[Block]:
        return encoded_blocks(self.vectors, plane)


def new_batch(
    store: Store,
    ids: Sequence[str],
    vectors: VectorsLike,
    metadata: Metadata,
    texts: TextList = None,
) -> Batch:
    """Raises `IndexMismatchError` for what does not fit the index."""
    manifest = store.manifest
    ids = new_ids(ids)
    encoded = zip(ids, encode_metadata(metadata, ids), checked_texts(texts, ids), strict=True)
    items = [Item(*one) for one in encoded]
    array = as_vectors(vectors, dim=manifest.dim, dtype=manifest.plane_dtypes[-1], side="candidate")
    num_vectors = manifest.limit.candidate
    if array.shape[:2] != (len(ids), num_vectors):
        raise IndexMismatchError(
            f"Candidate vectors have shape {array.shape}; {len(ids)} ids in index "
            f"{store.name!r} take ({len(ids)}, {num_vectors}, {manifest.dim})."
        )
    return Batch(items, array)


class Collector:
    """Takes batches in and writes a segment whenever there is enough for one."""

    def __init__(self, store: Store, *, replace: bool):
        self._store = store
        self._replace = replace
        self._bytes_per_item = store.manifest.num_bytes(store.manifest.limit.candidate)
        self._clear()

    def take(self, batch: Batch) -> None:
        """Keep a batch as it will be stored, in pieces that a segment can hold."""
        self._require_new([item.id for item in batch.items])
        size = max(1, SEGMENT_BYTES // self._bytes_per_item)
        start = 0
        while start < len(batch.items):
            stop = min(start + size - len(self._items), len(batch.items))
            piece = Batch(batch.items[start:stop], batch.vectors[start:stop])
            self._items += piece.items
            self._text_bytes += sum(
                len(item.id) + len(item.metadata) + len(item.text or "") for item in piece.items
            )
            for plane, blocks in self._blocks.items():
                blocks += piece.blocks(plane)
            start = stop
            if len(self._items) >= size or self._text_bytes >= SEGMENT_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what there is; it is durable then. Of an id that came twice the last one stays."""
        if not self._items:
            return
        positions = {item.id: position for position, item in enumerate(self._items)}
        kept = sorted(positions.values())
        items = [self._items[position] for position in kept]
        try:
            blocks = partial(self._kept, kept)
            insert(self._store, items, blocks, replace=self._replace)
        finally:
            self._clear()

    def _clear(self) -> None:
        self._items: list[Item] = []
        self._text_bytes = 0
        self._blocks: dict[Plane, list[Block]] = {
            plane: [] for plane in self._store.manifest.layout
        }

    def _kept(self, positions: list[int], plane: Plane) -> Iterator[Block]:
        chosen, start = np.array(positions, np.int64), 0
        for block in self._blocks[plane]:
            stop = start + len(block.stored.codes)
            low, high = np.searchsorted(chosen, (start, stop)).tolist()
            if low < high:
                yield Block(cut(block.stored, chosen[low:high] - start, 0, plane.width))
            start = stop

    def _require_new(self, ids: Sequence[str]) -> None:
        """Find early what `insert` would refuse."""
        if self._replace:
            return
        with self._store.reading():
            known = self._store.catalog.sequences_of(ids)[0]
        collected = {item.id for item in self._items}
        known += [id for id in ids if id in collected]
        if known:
            raise known_ids(self._store, known, "Give replace=True to replace them.")


def extend(store: Store, batches: Iterable[RawBatch], *, replace: bool) -> int:
    """Write batches as they come; see `Index.extend`."""
    collector, num_items = Collector(store, replace=replace), 0
    try:
        for raw in batches:
            batch = new_batch(store, *raw)
            collector.take(batch)
            num_items += len(batch.items)
    finally:
        collector.flush()
    return num_items
