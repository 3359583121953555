"""Segments put together: small ones while items are added, and all of them by `compact`.

Rows are copied as they are stored, with their sketches, in the order of their items; rows whose
item is gone are left out. Everything here belongs inside `Store.writing`, except `num_merged`.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metaembed.index.catalog import Catalog
from metaembed.index.layout import Plane
from metaembed.index.planes import Block
from metaembed.index.reading import stored_blocks
from metaembed.index.segments import Blocks, Segment, Segments
from metaembed.index.snapshot import Entry, Snapshot
from metaembed.index.store import Store

logger = logging.getLogger(__name__)

FANOUT = 8
"""So many segments of similar size become one. More: faster additions; fewer: faster searches.
With it an index has at most 7 segments for each power of 8 rows below that of a full segment."""

SEGMENT_BYTES = 2**28
"""Of stored vectors, or of ids and metadata. A segment of so many is full: `extend` writes it, and
additions leave it alone."""


class Written(NamedTuple):
    """A segment that lies on disk and that the catalog does not name yet."""

    segment: Segment
    sequences: Int[np.ndarray, " num_rows"]
    old: tuple[Entry, ...]
    """The segments in whose place it comes."""

    def record(self, catalog: Catalog) -> None:
        """Name it, and forget the old ones. The items that are gone must be marked before."""
        catalog.remove_segments(self.old)
        first, last = int(self.sequences[0]), int(self.sequences[-1])
        is_gapless = last - first == len(self.sequences) - 1
        catalog.add_segment(self.segment, first, None if is_gapless else self.sequences)


def write_new(
    store: Store,
    catalog: Catalog,
    num_rows: int,
    blocks: Blocks,
    *,
    first: int,
    replaced: Int[np.ndarray, " n"],
) -> Written:
    """Write rows of new items behind all others, and in the same segment the small ones before.

    `first` is the sequence of the first new item, and `replaced` are those of the items that go
    when the new ones come.
    """
    old = _small_neighbours(store, catalog, num_rows)
    old = old.where(~np.isin(old.sequences, replaced))
    sequences = np.concatenate([old.sequences, np.arange(first, first + num_rows)])

    def all_blocks(plane: Plane) -> Iterator[Block]:
        return chain(stored_blocks(store.segments, old.entries, plane), blocks(plane))

    segment = store.segments.write(catalog.next_segment(), len(sequences), all_blocks)
    return Written(segment, sequences, old.entries)


def write_again(store: Store, catalog: Catalog, old: Snapshot) -> Written:
    """Write the rows that a snapshot means as one segment; there has to be one."""
    blocks = sound_blocks(store.segments, old)
    segment = store.segments.write(catalog.next_segment(), len(old), blocks)
    return Written(segment, old.sequences, old.entries)


def sound_blocks(segments: Segments, snapshot: Snapshot, but: Collection[int] = ()) -> Blocks:
    """The vectors of a snapshot for another segment, after comparing all checksums.

    Or damage would get a new checksum there. `but` are numbers of segments that need no look.
    """
    for entry in snapshot.entries:
        if len(entry) and entry.segment.number not in but:
            segments.require_sound(entry.segment)
    return lambda plane: stored_blocks(segments, snapshot.entries, plane)


def num_merged(sizes: Sequence[int], num_new: int, *, full: int) -> int:
    """How many of the last segments are written again together with new rows.

    `sizes` are their numbers of rows, and from `full` on a segment is left alone. A segment with
    F^n rows or more, but less than F^(n+1), has level n. Levels never rise from one segment to the
    next, and no level has F segments. So without deletions a row is written once, and again only
    when it comes to a higher level.

    >>> num_merged([64, 8, 8, 1, 1], 1, full=10**6)  # the new row is the third of its level
    0
    >>> num_merged([64, 8, 8, 1, 1], 9, full=10**6)  # smaller ones do not stay before it
    2
    >>> num_merged([64] + 7 * [8] + 7 * [1], 1, full=10**6)  # the eighth of its level, and again
    14
    """
    start, total = len(sizes), num_new
    while True:
        while start and sizes[start - 1] < full and _level(sizes[start - 1]) < _level(total):
            start -= 1
            total += sizes[start]
        first = start  # of those of the same level
        while first and sizes[first - 1] < full and _level(sizes[first - 1]) == _level(total):
            first -= 1
        if start - first + 1 < FANOUT:
            return len(sizes) - start
        total += sum(sizes[first:start])
        start = first


def full_size(store: Store) -> int:
    """How many rows a full segment has."""
    manifest = store.manifest
    return max(1, SEGMENT_BYTES // manifest.num_bytes(manifest.limit.candidate))


def _small_neighbours(store: Store, catalog: Catalog, num_new: int) -> Snapshot:
    """The live rows of the segments that new rows are put together with."""
    segments = catalog.segments()
    ordered = [segments[number] for number in catalog.segment_numbers()]
    chosen = _chosen(store, ordered, num_new)
    return Snapshot(store.name, 0, catalog.neighbours([segment.number for segment in chosen]))


def _chosen(store: Store, ordered: Sequence[Segment], num_new: int) -> Sequence[Segment]:
    sizes = [segment.num_rows for segment in ordered]
    first = len(sizes) - num_merged(sizes, num_new, full=full_size(store))
    for number in reversed(range(first, len(sizes))):
        if problems := store.segments.problems(ordered[number]):
            # It is for `repair` to say what is lost; new items are welcome meanwhile.
            logger.warning("%s Its segment stays as it is.", problems[0])
            return _chosen(store, ordered[number + 1 :], num_new)
    return ordered[first:]


def _level(num_rows: int) -> int:
    level = 0
    while num_rows >= FANOUT:
        num_rows //= FANOUT
        level += 1
    return level
