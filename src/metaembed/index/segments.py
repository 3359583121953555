"""Vectors on disk: immutable segments, each a folder of prefix planes.

A plane is one `.npy` file of shape (rows, stop - start, dim) that holds vectors `start` to `stop`
of every row. Searching with `r_c` vectors maps and touches only the planes below `r_c`.
"""

import os
import shutil
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int
from numpy.lib import format as npy

from metaembed.errors import IndexFormatError
from metaembed.index.disk import damaged, sync_folder, unreadable, unwritable
from metaembed.index.manifest import Manifest

MAX_OPEN_PLANES = 96
"""Each mapped plane holds a file descriptor, and macOS gives a process 256 by default."""

MAX_HEADER_BYTES = 256
"""The `.npy` header of a plane takes 128 bytes, and by that format a multiple of 64."""

CHECKSUM_CHUNK = 2**20

COPY_BLOCK_ELEMENTS = 2**24
"""Numbers that a compaction holds at once: 32 MiB in float16."""


class Plane(NamedTuple):
    """One file of a segment, as the catalog recorded it when it was written."""

    start: int
    stop: int
    num_bytes: int
    crc32: int


class Segment(NamedTuple):
    number: int
    num_rows: int
    planes: tuple[Plane, ...]


@dataclass(frozen=True)
class Rows:
    """Where items are stored, in insertion order."""

    sequence: Int[np.ndarray, " n"]
    segment: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, chosen: Any) -> "Rows":
        return Rows(self.sequence[chosen], self.segment[chosen], self.row[chosen])


class Segments:
    """The segments folder of one index. Safe to read from several threads."""

    def __init__(self, folder: Path, manifest: Manifest):
        self._folder = folder
        self._name = folder.parent.name
        self._manifest = manifest
        self._open_planes: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._mutex = threading.Lock()

    def check(self, segment: Segment) -> None:
        """Compare the files' sizes with the catalog and the shape; reads no vector."""
        if tuple((plane.start, plane.stop) for plane in segment.planes) != self._manifest.planes:
            raise damaged(
                self._name, f"segment {segment.number} has other planes than the manifest"
            )
        for plane in segment.planes:
            header = plane.num_bytes - self._payload(segment, plane)
            if not 0 < header <= MAX_HEADER_BYTES or header % npy.ARRAY_ALIGN:
                raise damaged(
                    self._name,
                    f"segment {segment.number} cannot hold {segment.num_rows} rows "
                    f"in the {plane.num_bytes} bytes that the catalog records",
                )
            path = self._path(segment, plane)
            try:
                size = path.stat().st_size
            except OSError:
                raise damaged(self._name, f"{path.relative_to(self._folder)} is missing") from None
            if size != plane.num_bytes:
                raise damaged(
                    self._name,
                    f"{path.relative_to(self._folder)} has {size} bytes instead of "
                    f"{plane.num_bytes}",
                )

    def problems(self, segment: Segment) -> list[str]:
        """Read every byte of a segment and describe what is wrong with it."""
        try:
            self.check(segment)
        except IndexFormatError as error:
            return [str(error)]
        return [
            f"Index {self._name!r}: {path.relative_to(self._folder)} differs from its checksum."
            for plane in segment.planes
            if _checksum(path := self._path(segment, plane)) != plane.crc32
        ]

    def require_sound(self, segment: Segment) -> None:
        if problems := self.problems(segment):
            raise IndexFormatError(f"{problems[0]} Restore the folder or rebuild the index.")

    def read(
        self,
        rows: Rows,
        segments: Mapping[int, Segment],
        *,
        start: int,
        stop: int,
        dtype: "np.dtype[Any]",
    ) -> np.ndarray:
        """Copy vectors `start` to `stop` of `rows` into one (n, stop - start, dim) array."""
        block = np.empty((len(rows), stop - start, self._manifest.dim), dtype)
        for number in np.unique(rows.segment).tolist():
            here = rows.segment == number
            segment, local = self._locate(number, rows.row[here], segments)
            for plane in segment.planes:
                low, high = max(start, plane.start), min(stop, plane.stop)
                if low < high:
                    vectors = self._open(segment, plane)
                    block[here, low - start : high - start] = vectors[
                        local, low - plane.start : high - plane.start
                    ]
        return block

    def read_blocks(
        self, rows: Rows, segments: Mapping[int, Segment], start: int, stop: int
    ) -> Iterator[np.ndarray]:
        """`read` as stored, a bounded block of rows at a time."""
        size = max(1, COPY_BLOCK_ELEMENTS // ((stop - start) * self._manifest.dim))
        dtype = self._manifest.stored_dtype
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            yield self.read(some, segments, start=start, stop=stop, dtype=dtype)

    def write(
        self,
        number: int,
        num_rows: int,
        blocks: Callable[[int, int], Iterable[np.ndarray]],
    ) -> Segment:
        """Write and fsync a segment; it becomes visible when the catalog names it.

        `blocks(start, stop)` yields the rows of that plane, a block of them at a time.
        """
        folder = self._folder / str(number)
        dim, dtype = self._manifest.dim, self._manifest.stored_dtype
        planes = []
        try:
            folder.mkdir()
            for start, stop in self._manifest.planes:
                with (folder / _plane_name(start, stop)).open("xb") as file:
                    shape = (num_rows, stop - start, dim)
                    size, crc = _write_plane(file, shape, dtype, blocks(start, stop))
                planes.append(Plane(start, stop, size, crc))
            sync_folder(folder)
            sync_folder(self._folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)  # a full disk should not stay full
            raise unwritable(self._name, error) from None
        return Segment(number, num_rows, tuple(planes))

    def remove_all_but(self, numbers: Collection[int]) -> None:
        """Delete the segments that the catalog does not name. Only a writer may."""
        kept = {str(number) for number in numbers}
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError as error:
            raise unwritable(self._name, error) from None
        for name in names:
            if name not in kept and name.isascii() and name.isdecimal():
                # What cannot be deleted now, such as a file mapped on Windows, is left over for
                # the next writer.
                shutil.rmtree(self._folder / name, ignore_errors=True)

    def forget_all_but(self, numbers: Collection[int]) -> None:
        """Unmap segments that were compacted away, so that their space is freed."""
        with self._mutex:
            for key in [key for key in self._open_planes if key[0] not in numbers]:
                del self._open_planes[key]

    def _locate(
        self, number: int, local: np.ndarray, segments: Mapping[int, Segment]
    ) -> tuple[Segment, np.ndarray]:
        segment = segments.get(number)
        if segment is None:
            raise damaged(self._name, f"an item lies in segment {number}, which does not exist")
        if local.min() < 0 or local.max() >= segment.num_rows:
            raise damaged(
                self._name, f"an item lies outside the {segment.num_rows} rows of {number}"
            )
        return segment, local

    def _open(self, segment: Segment, plane: Plane) -> np.ndarray:
        key = (segment.number, plane.start)
        with self._mutex:
            if key not in self._open_planes:
                self._open_planes[key] = self._map(segment, plane)
                if len(self._open_planes) > MAX_OPEN_PLANES:
                    self._open_planes.popitem(last=False)
            self._open_planes.move_to_end(key)
            return self._open_planes[key]

    def _map(self, segment: Segment, plane: Plane) -> np.ndarray:
        path = self._path(segment, plane)
        shape = (segment.num_rows, plane.stop - plane.start, self._manifest.dim)
        try:
            if path.stat().st_size != plane.num_bytes:
                raise ValueError("the file has another size than the catalog records")
            vectors = np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=2**12)
            if vectors.shape != shape or vectors.dtype != self._manifest.stored_dtype:
                raise ValueError(f"it holds {vectors.dtype} of shape {vectors.shape}")
            if not vectors.flags.c_contiguous:
                raise ValueError("its order is not C")
        except FileNotFoundError:
            raise damaged(self._name, f"{path.relative_to(self._folder)} is missing") from None
        except OSError as error:
            raise unreadable(self._name, error) from None
        except Exception as error:  # a header of arbitrary bytes fails in many ways
            problem = " ".join(str(error).split())[:200]
            raise damaged(
                self._name, f"{path.relative_to(self._folder)} cannot be read ({problem})"
            ) from None
        return vectors

    def _payload(self, segment: Segment, plane: Plane) -> int:
        return segment.num_rows * self._manifest.num_bytes(plane.stop - plane.start)

    def _path(self, segment: Segment, plane: Plane) -> Path:
        return self._folder / str(segment.number) / _plane_name(plane.start, plane.stop)


def _plane_name(start: int, stop: int) -> str:
    return f"plane-{start}-{stop}.npy"


def _write_plane(
    file: BinaryIO, shape: tuple[int, ...], dtype: "np.dtype[Any]", blocks: Iterable[np.ndarray]
) -> tuple[int, int]:
    """Write what `np.save` would, block by block; return the size and the CRC-32 of the file."""
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    sink = _Checked(file)
    npy.write_array_header_1_0(sink, header)
    for block in blocks:
        sink.write(np.ascontiguousarray(block, dtype).data.cast("B"))
    file.flush()
    os.fsync(file.fileno())
    return sink.size, sink.crc32


class _Checked:
    """A file that keeps count and checksum of what passes through."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.size = 0
        self.crc32 = 0

    def write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self.size += len(content)
        self.crc32 = zlib.crc32(content, self.crc32)


def _checksum(path: Path) -> int | None:
    """The CRC-32 of a file; none when the disk fails to give it."""
    crc = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHECKSUM_CHUNK):
                crc = zlib.crc32(chunk, crc)
    except OSError:
        return None
    return crc
