"""Which files a segment has, and what is in them.

A plane holds vectors `start` to `stop` (`stop` excluded) of every row of a segment:

    plane-<a>-<b>.npy          codes, of the shape and type that `metaembed.storage` gives them
    scale-<a>-<b>.npy          their scales, where the type has any
    sketch-<a>-<b>.npy         the same vectors in a smaller type, where the index has a sketch
    sketch-scale-<a>-<b>.npy   its scales, where its type has any
    sketch-error-<a>-<b>.npy   of a sketch that has scales, (rows, 2) float32: for each row, over
                               the vectors of the plane, the largest norm of what the sketch misses
                               and the largest norm of a sketched vector, both rounded up

Names come from here alone; what the catalog calls its files is compared with them.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from metaembed.storage import CODES, SCALE, StorageType, code_length, has_scales


class ArrayFile(NamedTuple):
    """One `.npy` file of a segment, with a `row_shape` for each item."""

    name: str
    dtype: "np.dtype[Any]"
    row_shape: tuple[int, ...]

    def num_bytes(self, num_rows: int) -> int:
        """Without the header."""
        return num_rows * math.prod(self.row_shape) * self.dtype.itemsize


class Plane(NamedTuple):
    """A range of the prefix of an item's vectors, and how it is stored."""

    start: int
    stop: int
    dim: int
    dtype: StorageType
    sketch: StorageType | None

    @property
    def width(self) -> int:
        return self.stop - self.start

    @property
    def stored(self) -> tuple[ArrayFile, ...]:
        """Codes, then scales if there are any."""
        return tuple(self._files(self.dtype, "plane", "scale"))

    @property
    def sketched(self) -> tuple[ArrayFile, ...]:
        """Codes, then scales if there are any; empty without a sketch."""
        if self.sketch is None:
            return ()
        return tuple(self._files(self.sketch, "sketch", "sketch-scale"))

    @property
    def errors(self) -> tuple[ArrayFile, ...]:
        """Of a sketch whose scores estimate scores; a binary one only orders candidates."""
        if self.sketch is None or not has_scales(self.sketch):
            return ()
        return (ArrayFile(self._name("sketch-error"), SCALE, (2,)),)

    @property
    def files(self) -> tuple[ArrayFile, ...]:
        return self.stored + self.sketched + self.errors

    def _files(self, dtype: StorageType, codes: str, scales: str) -> Iterator[ArrayFile]:
        row_shape = (self.width, code_length(dtype, self.dim))
        yield ArrayFile(self._name(codes), CODES[dtype], row_shape)
        if has_scales(dtype):
            yield ArrayFile(self._name(scales), SCALE, (self.width,))

    def _name(self, kind: str) -> str:
        return f"{kind}-{self.start}-{self.stop}.npy"
