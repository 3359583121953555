"""`.npy` files: written a block at a time with a checksum, and mapped without trusting them."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from metaembed.index.layout import ArrayFile

MAX_HEADER_BYTES = 256
"""The header of a segment's files takes 128 bytes, and by that format a multiple of 64."""

SMALL_BYTES = 2**18
"""A file up to this size is read instead of mapped, which would hold a file descriptor."""

CHECKSUM_CHUNK = 2**20


class NpyWriter:
    """What `np.save` would write, in blocks of rows, with the size and CRC-32 of the file."""

    def __init__(self, file: BinaryIO, kind: ArrayFile, num_rows: int):
        self._file = file
        self._kind = kind
        self.num_bytes = 0
        self.crc32 = 0
        npy.write_array_header_1_0(
            self,
            {
                "descr": npy.dtype_to_descr(kind.dtype),
                "fortran_order": False,
                "shape": (num_rows, *kind.row_shape),
            },
        )
        self._expected = self.num_bytes + kind.num_bytes(num_rows)

    def write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self.num_bytes += len(content)
        self.crc32 = zlib.crc32(content, self.crc32)

    def write_rows(self, rows: np.ndarray) -> None:
        assert rows.shape[1:] == self._kind.row_shape
        self.write(np.ascontiguousarray(rows, self._kind.dtype).data.cast("B"))

    def finish(self) -> None:
        """Make the file durable."""
        assert self.num_bytes == self._expected
        self._file.flush()
        os.fsync(self._file.fileno())


def open_array(path: Path, kind: ArrayFile, *, num_rows: int, num_bytes: int) -> np.ndarray:
    """Map a file, read-only.

    Raises OSError where the system does not give it, and anything else where it is not what is
    expected.
    """
    if path.stat().st_size != num_bytes:
        raise ValueError("the file has another size than the catalog records")
    array = np.load(
        path,
        mmap_mode="r" if num_bytes > SMALL_BYTES else None,
        allow_pickle=False,
        max_header_size=2**12,
    )
    if array.shape != (num_rows, *kind.row_shape) or array.dtype != kind.dtype:
        raise ValueError(f"it holds {array.dtype} of shape {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError("its order is not C")
    array.flags.writeable = False
    return array.view(np.ndarray)


def is_size(num_bytes: int, kind: ArrayFile, *, num_rows: int) -> bool:
    """Whether a file of `num_bytes` can hold that many rows and a header."""
    header = num_bytes - kind.num_bytes(num_rows)
    return 0 < header <= MAX_HEADER_BYTES and header % npy.ARRAY_ALIGN == 0


def checksum(path: Path, *, progress: Callable[[int], None] = lambda _: None) -> int | None:
    """The CRC-32 of a file; none when the disk fails to give it. Tells how many bytes were read."""
    crc = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHECKSUM_CHUNK):
                crc = zlib.crc32(chunk, crc)
                progress(len(chunk))
    except OSError:
        return None
    return crc
