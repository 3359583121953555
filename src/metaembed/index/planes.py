"""Vectors of a plane as arrays: encoded, cut, sketched, and written a block of rows at a time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metaembed.errors import IndexMismatchError
from metaembed.index.arrays import BLOCK_ELEMENTS, is_finite
from metaembed.index.layout import Plane
from metaembed.index.npy import NpyWriter
from metaembed.storage import SCALE, StorageType, Stored, decode, encode, has_scales

RowIndex = slice | Int[np.ndarray, " n"]


class Sketch(NamedTuple):
    """A smaller copy of stored vectors."""

    stored: Stored
    errors: Float[np.ndarray, "rows 2"] | None
    """See `layout`; None for a binary sketch."""


class Block(NamedTuple):
    """Some rows of a plane on their way to disk."""

    stored: Stored
    sketch: Sketch | None = None
    """None where it has still to be made."""


class File(NamedTuple):
    """One file of a segment, as the catalog records it when it has been written."""

    name: str
    num_bytes: int
    crc32: int


def block_rows(plane: Plane) -> int:
    """How many rows of a plane are held at once."""
    return max(1, BLOCK_ELEMENTS // (plane.width * plane.dim))


def encoded_blocks(vectors: Float[np.ndarray, "N r dim"], plane: Plane) -> Iterator[Block]:
    """Encode a plane of vectors of any float type."""
    size = block_rows(plane)
    for start in range(0, len(vectors), size):
        block = vectors[start : start + size, plane.start : plane.stop]
        yield Block(encode(block.astype(np.float32), plane.dtype))


def cut(stored: Stored, rows: RowIndex, start: int, stop: int) -> Stored:
    """Some rows, and of each the vectors `start` to `stop`."""
    scales = None if stored.scales is None else stored.scales[rows, start:stop]
    return stored._replace(codes=stored.codes[rows, start:stop], scales=scales)


def joined(pieces: Sequence[Stored], dtype: StorageType) -> Stored:
    """Consecutive vectors of the same rows, in one storage type.

    Bit for bit where they have that type already; anything else is decoded and rounded again,
    and `IndexMismatchError` raised for a number that is too large.
    """
    first = pieces[0]
    if any(piece.dtype != dtype for piece in pieces):
        vectors = np.concatenate([decode(piece) for piece in pieces], axis=1)
        if not is_finite(vectors, dtype):
            raise IndexMismatchError(
                f"The index holds numbers too large for {dtype}. Choose another storage type."
            )
        return encode(vectors, dtype)
    if len(pieces) == 1:
        return first
    scales = [piece.scales for piece in pieces if piece.scales is not None]
    return first._replace(
        codes=np.concatenate([piece.codes for piece in pieces], axis=1),
        scales=np.concatenate(scales, axis=1) if scales else None,
    )


def sketch_of(stored: Stored, dtype: StorageType) -> Sketch:
    """Make the sketch of vectors as they are stored, which is the same wherever it is made."""
    vectors = decode(stored)
    sketch = encode(vectors, dtype)
    if not has_scales(dtype):
        return Sketch(sketch, None)
    sketched = decode(sketch).astype(np.float64)
    missed = _largest_norms(vectors - sketched)
    return Sketch(sketch, np.stack([missed, _largest_norms(sketched)], axis=1))


def write_plane(
    folder: Path, plane: Plane, num_rows: int, blocks: Iterable[Block]
) -> tuple[File, ...]:
    """Write and fsync the files of a plane, with `num_rows` rows in all."""
    with ExitStack() as stack:
        writers = []
        for kind in plane.files:
            file = stack.enter_context((folder / kind.name).open("xb"))
            writers.append(NpyWriter(file, kind, num_rows))
        for block in blocks:
            for writer, rows in zip(writers, _arrays(block, plane), strict=True):
                writer.write_rows(rows)
        for writer in writers:
            writer.finish()
        return tuple(
            File(kind.name, writer.num_bytes, writer.crc32)
            for kind, writer in zip(plane.files, writers, strict=True)
        )


def _arrays(block: Block, plane: Plane) -> list[np.ndarray]:
    """In the order of `plane.files`."""
    arrays: list[np.ndarray | None] = [block.stored.codes, block.stored.scales]
    if plane.sketch is not None:
        sketch = block.sketch or sketch_of(block.stored, plane.sketch)
        arrays += [sketch.stored.codes, sketch.stored.scales, sketch.errors]
    return [array for array in arrays if array is not None]


def _largest_norms(vectors: np.ndarray) -> Float[np.ndarray, " rows"]:
    """The largest norm in each row, rounded up: float64 (rows, width, dim)."""
    norms = np.sqrt(np.einsum("rwd,rwd->rw", vectors, vectors)).max(axis=1)  # (rows,)
    with np.errstate(over="ignore"):
        return np.nextafter(norms.astype(SCALE), SCALE.type(np.inf))
