"""Vectors on their way out of segments: copied as stored, or decoded."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from metaembed.index.layout import Plane
from metaembed.index.planes import Block, RowIndex, Sketch, block_rows, cut, joined
from metaembed.index.segments import Segment, Segments
from metaembed.index.snapshot import Entry
from metaembed.storage import decode


def read_vectors(
    segments: Segments, segment: Segment, rows: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n r dim"]:
    """All vectors of some rows, decoded."""
    planes = [segments.stored(segment, plane) for plane in segments.layout]
    parts = [decode(cut(plane, rows, 0, plane.codes.shape[1])) for plane in planes]
    return np.concatenate(parts, axis=1)


def stored_blocks(segments: Segments, entries: Sequence[Entry], target: Plane) -> Iterator[Block]:
    """The vectors that entries mean, in order, as another segment's plane stores them.

    Planes that are alike are copied bit for bit.
    """
    for entry in entries:
        if len(entry):
            yield from _entry_blocks(segments, entry, target)


def _entry_blocks(segments: Segments, entry: Entry, target: Plane) -> Iterator[Block]:
    segment = entry.segment
    covering = [
        plane
        for plane in segments.layout
        if plane.start < target.stop and target.start < plane.stop
    ]
    planes = [(plane.start, segments.stored(segment, plane)) for plane in covering]
    has_sketch = covering == [target] and target.sketch is not None
    sketch = segments.sketch(segment, target) if has_sketch else None
    for rows in _row_blocks(entry, block_rows(target)):
        pieces = [
            cut(stored, rows, max(target.start - start, 0), target.stop - start)
            for start, stored in planes
        ]
        yield Block(joined(pieces, target.dtype), None if sketch is None else _some(sketch, rows))


def _row_blocks(entry: Entry, size: int) -> Iterator[RowIndex]:
    for start in range(0, len(entry), size):
        block = slice(start, min(start + size, len(entry)))
        yield block if entry.rows is None else entry.rows[block]


def _some(sketch: Sketch, rows: RowIndex) -> Sketch:
    errors = None if sketch.errors is None else sketch.errors[rows]
    return Sketch(cut(sketch.stored, rows, 0, sketch.stored.codes.shape[1]), errors)
