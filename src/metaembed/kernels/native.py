"""The compiled kernel: its library, and searches with it (`native/search.cpp` is the other side).

Calls let go of the GIL and use `threads` threads, which stay for the next call.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metaembed.kernels.parts import Best, Part, num_items, overflow, select
from metaembed.storage import STORAGE_TYPES

LIBRARY = Path(__file__).parent / "_native.so"
INTERFACE = 1
OK, NOT_FINITE, OUT_OF_MEMORY, UNSUPPORTED = range(4)

MAX_PANEL_NUMBERS = 2**18
"""Numbers of query vectors that are scored together; more queries read the candidates again."""


class _Plane(ctypes.Structure):
    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("kind", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("used", ctypes.c_int32),
        ("code_bytes", ctypes.c_int32),
    )


class _Part(ctypes.Structure):
    _fields_ = (
        ("planes", ctypes.POINTER(_Plane)),
        ("rows", ctypes.c_void_p),
        ("count", ctypes.c_int64),
    )


class Library(NamedTuple):
    """The loaded library and the instruction sets that this processor has, fastest first."""

    search: "ctypes._NamedFuncPointer"
    instruction_sets: dict[str, int]


@cache
def library() -> Library | None:
    """Load the compiled kernel; None where the package was built without one."""
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
        if loaded.metaembed_interface() != INTERFACE:
            return None
    except (OSError, AttributeError):
        return None
    name = loaded.metaembed_instruction_set
    name.restype = ctypes.c_char_p
    sets = {}
    number = 0
    while (found := name(number)) is not None:
        if found:
            sets[found.decode()] = number
        number += 1
    pointer = ctypes.c_void_p
    loaded.metaembed_search.argtypes = (
        *(ctypes.c_int, pointer, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        *(ctypes.POINTER(_Part), ctypes.c_int, ctypes.c_int, ctypes.c_int64),
        *(ctypes.c_int, pointer, pointer),
    )
    return Library(loaded.metaembed_search, sets)


def default_threads() -> int:
    """`METAEMBED_THREADS`, or as many as this process may run on."""
    asked = os.environ.get("METAEMBED_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class NativeParts:
    """Parts as the library takes them, at one `r_c`. Keeps the arrays that it points to alive."""

    def __init__(self, parts: Sequence[Part], *, r_c: int):
        self._take(parts, [self._planes(part, r_c) for part in parts])

    def at(self, positions: Int[np.ndarray, " n"]) -> "NativeParts":
        """Of the items at these ascending positions."""
        few = object.__new__(NativeParts)
        few._take(select(self._parts, positions), self._structures)
        return few

    def _take(self, parts: Sequence[Part], structures: "Sequence[ctypes.Array[_Plane]]") -> None:
        self._parts, self._structures = parts, structures
        self.num_items = num_items(parts)
        self.num_planes = len(structures[0]) if structures else 0
        self._rows, listed = [], []
        for part, planes in zip(parts, structures, strict=True):
            rows = None if part.rows is None else np.ascontiguousarray(part.rows, dtype=np.int64)
            self._rows.append(rows)
            if size := num_items([part]):
                listed.append(_Part(planes, None if rows is None else rows.ctypes.data, size))
        self.pointers = (_Part * len(listed))(*listed)

    def _planes(self, part: Part, r_c: int) -> "ctypes.Array[_Plane]":
        planes, left = [], r_c
        for plane in part.planes:
            if left <= 0:
                break
            rows, width, _ = plane.codes.shape
            codes, scales = plane.codes, plane.scales
            planes.append(
                _Plane(
                    codes.ctypes.data,
                    None if scales is None else scales.ctypes.data,
                    rows,
                    STORAGE_TYPES.index(plane.dtype),
                    width,
                    min(width, left),
                    codes.strides[1],
                )
            )
            left -= width
        return (_Plane * len(planes))(*planes)


def search(
    queries: Float[np.ndarray, "Q r_q dim"],
    parts: NativeParts,
    *,
    k: int,
    instruction_set: str | None = None,
    threads: int | None = None,
) -> Best:
    """The best `k` items of each query; all scores, and no positions, when `k` is 0."""
    loaded = library()
    assert loaded is not None
    Q, r_q, dim = queries.shape
    k = min(k, parts.num_items)
    scores = np.empty((Q, k or parts.num_items), np.float32)
    positions = np.empty((Q, k), np.int64)
    if not Q or not parts.num_items:
        return Best(scores, positions)
    number = 0
    if instruction_set is None:
        number = next(iter(loaded.instruction_sets.values()))
    else:
        number = loaded.instruction_sets[instruction_set]
    threads = threads or default_threads()
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    step = max(1, MAX_PANEL_NUMBERS // (r_q * dim))
    for start in range(0, Q, step):
        some = queries[start : start + step]
        status = loaded.search(
            *(number, some.ctypes.data, len(some), r_q, dim),
            *(parts.pointers, len(parts.pointers), parts.num_planes, k, threads),
            *(scores[start:].ctypes.data, positions[start:].ctypes.data),
        )
        if status == OUT_OF_MEMORY:
            raise MemoryError
        if status == NOT_FINITE:
            raise overflow()
        assert status == OK
    return Best(scores, positions)
