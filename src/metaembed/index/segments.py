"""Vectors on disk: immutable segments, each a folder of prefix planes.

Searching with `r_c` vectors maps and touches only the planes below `r_c`.
"""

import errno
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metaembed.errors import IndexFormatError, one_line
from metaembed.index.disk import (
    REPAIR,
    damaged,
    max_open_files,
    problem_line,
    sync_folder,
    unreadable,
)
from metaembed.index.layout import ArrayFile, Plane
from metaembed.index.manifest import Manifest
from metaembed.index.npy import checksum, is_size, open_array
from metaembed.index.planes import Block, File, Sketch, write_plane
from metaembed.storage import StorageType, Stored

Blocks = Callable[[Plane], Iterable[Block]]
"""The rows of a plane, a block of them at a time."""


class Segment(NamedTuple):
    number: int
    num_rows: int
    files: tuple[File, ...]


def num_rows(segments: Iterable[Segment]) -> int:
    return sum(segment.num_rows for segment in segments)


class Segments:
    """The segments folder of one index. Safe to read from several threads."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.layout = manifest.layout
        self._folder = folder
        self._name = folder.parent.name
        self._kinds = {kind.name: kind for plane in self.layout for kind in plane.files}
        self._open_files: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()
        self._max_open_files = max_open_files() // 2
        self._mutex = threading.Lock()

    def check(self, segment: Segment) -> None:
        """Compare the files' names and sizes with the catalog and the shape; reads no vector."""
        for error in self.misfits(segment).values():
            raise error

    def misfits(self, segment: Segment) -> dict[str, IndexFormatError]:
        """What `check` finds wrong, by the names of the files; an empty one: with the names."""
        found: dict[str, IndexFormatError] = {}
        if {file.name for file in segment.files} != self._kinds.keys():
            found[""] = self._other_files(segment)
        for file in self._known_files(segment):
            error = self._misfit(segment, file)
            if error is not None:
                found[file.name] = error
        return found

    def problems(
        self, segment: Segment, *, progress: Callable[[int], None] = lambda _: None
    ) -> list[str]:
        """Read every byte of a segment and describe what is wrong with it."""
        misfits = self.misfits(segment)
        return [problem_line(self._name, error) for error in misfits.values()] + [
            problem_line(self._name, f"{segment.number}/{file.name} differs from its checksum")
            for file in self._known_files(segment)
            if file.name not in misfits
            and checksum(self._path(segment, file.name), progress=progress) != file.crc32
        ]

    def require_sound(self, segment: Segment) -> None:
        self.check(segment)
        if problems := self.problems(segment):
            raise IndexFormatError(f"{problems[0]} {REPAIR}")

    def stored(self, segment: Segment, plane: Plane) -> Stored:
        """A plane of all rows, mapped."""
        return self._stored(segment, plane.stored, plane.dtype, plane.dim)

    def sketch(self, segment: Segment, plane: Plane) -> Sketch:
        """The sketch of a plane of all rows, mapped. The index must have one."""
        assert plane.sketch is not None
        stored = self._stored(segment, plane.sketched, plane.sketch, plane.dim)
        errors = [self._open(segment, kind) for kind in plane.errors]
        return Sketch(stored, errors[0] if errors else None)

    def map(self, segment: Segment) -> None:
        """Open all files of a segment, which may be deleted then, for as long as there is room."""
        for kind in self._kinds.values():
            self._open(segment, kind)

    def planes(self, num_vectors: int) -> tuple[Plane, ...]:
        """Those that hold the first `num_vectors` vectors."""
        return tuple(plane for plane in self.layout if plane.start < num_vectors)

    def write(self, number: int, num_rows: int, blocks: Blocks) -> Segment:
        """Write and fsync a segment; it becomes visible when the catalog names it."""
        folder = self._folder / str(number)
        try:
            folder.mkdir()
            files = [
                file
                for plane in self.layout
                for file in write_plane(folder, plane, num_rows, blocks(plane))
            ]
            sync_folder(folder)
            sync_folder(self._folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # a full disk should not stay full
            raise
        return Segment(number, num_rows, tuple(files))

    def remove_all_but(self, numbers: Collection[int]) -> None:
        """Delete the segments that the catalog does not name. Only a writer may."""
        kept = {str(number) for number in numbers}
        for name in [path.name for path in self._folder.iterdir()]:
            if name not in kept and name.isascii() and name.isdecimal():
                # What cannot be deleted now, such as a file mapped on Windows, is left over for
                # the next writer.
                shutil.rmtree(self._folder / name, ignore_errors=True)

    def forget_all_but(self, numbers: Collection[int]) -> None:
        """Unmap segments that were compacted away, so that their space is freed."""
        with self._mutex:
            for key in [key for key in self._open_files if key[0] not in numbers]:
                del self._open_files[key]

    def _stored(
        self, segment: Segment, kinds: tuple[ArrayFile, ...], dtype: StorageType, dim: int
    ) -> Stored:
        codes, *scales = (self._open(segment, kind) for kind in kinds)
        return Stored(dtype, dim, codes, scales[0] if scales else None)

    def _open(self, segment: Segment, kind: ArrayFile) -> np.ndarray:
        key = (segment.number, kind.name)
        with self._mutex:
            if key not in self._open_files:
                self._open_files[key] = self._map(segment, kind)
                if len(self._open_files) > self._max_open_files:
                    self._open_files.popitem(last=False)
            self._open_files.move_to_end(key)
            return self._open_files[key]

    def _map(self, segment: Segment, kind: ArrayFile) -> np.ndarray:
        sizes = {file.name: file.num_bytes for file in segment.files}
        if kind.name not in sizes:
            raise self._other_files(segment)
        path = self._path(segment, kind.name)
        try:
            return open_array(path, kind, num_rows=segment.num_rows, num_bytes=sizes[kind.name])
        except FileNotFoundError:
            raise damaged(self._name, f"{segment.number}/{kind.name} is missing") from None
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise IndexFormatError(
                    f"Index {self._name!r} has more files than the system lets one process open. "
                    "Compact it, or raise the limit (ulimit -n)."
                ) from None
            raise unreadable(self._name, error) from None
        except Exception as error:  # a header of arbitrary bytes fails in many ways
            problem = one_line(error, limit=200)
            raise damaged(
                self._name, f"{segment.number}/{kind.name} cannot be read ({problem})"
            ) from None

    def _known_files(self, segment: Segment) -> list[File]:
        return [file for file in segment.files if file.name in self._kinds]

    def _misfit(self, segment: Segment, file: File) -> IndexFormatError | None:
        name, num_bytes = f"{segment.number}/{file.name}", file.num_bytes
        if not is_size(num_bytes, self._kinds[file.name], num_rows=segment.num_rows):
            problem = f"segment {segment.number} cannot hold {segment.num_rows} rows"
            problem += f" in the {num_bytes} bytes that the catalog records for {file.name}"
            return damaged(self._name, problem)
        try:
            size = self._path(segment, file.name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return damaged(self._name, f"{name} is missing")
        except OSError as error:
            return unreadable(self._name, error)
        if size != num_bytes:
            return damaged(self._name, f"{name} has {size} bytes instead of {num_bytes}")
        return None

    def _other_files(self, segment: Segment) -> IndexFormatError:
        problem = f"segment {segment.number} has other files than the manifest says"
        return damaged(self._name, problem)

    def _path(self, segment: Segment, name: str) -> Path:
        """`name` is one that the layout gives."""
        return self._folder / str(segment.number) / name
