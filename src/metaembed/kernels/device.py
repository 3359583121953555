"""Stored vectors in a device's memory: kept there, or passing through it block by block.

On a device the vectors of a part lie vector-major: all first vectors, then all second ones. A
budget of r_c candidate vectors then reads one contiguous run of memory, and neighbouring planes of
one storage type are one tensor.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metaembed.kernels.parts import Part
from metaembed.storage import StorageType, Stored

STREAM_BYTES = 2**26
"""Codes copied at a time: 64 MiB, 3 ms of a PCIe 4.0 bus. Three blocks are alive at most, in
page-locked memory as on the device."""

TENSOR_TYPES: dict[StorageType, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.uint8,
    "int4": torch.uint8,
    "binary": torch.uint8,
}


class DevicePlane(NamedTuple):
    """Consecutive vectors of one storage type; the codes of a vector are contiguous."""

    dtype: StorageType
    codes: Shaped[Tensor, "width rows code_length"]
    scales: Float[Tensor, "width rows"] | None


class DevicePart(NamedTuple):
    """A `Part` in device memory. To score other rows of it, replace `rows`."""

    planes: tuple[DevicePlane, ...]
    """Neighbours differ in storage type."""
    rows: Int[Tensor, " n"] | None
    """int64 on the same device; None: all of them."""


class Span(NamedTuple):
    """The items from `start` to `stop` of a part, counted through its selected rows."""

    part: Part | DevicePart
    start: int
    stop: int


def num_selected(part: Part | DevicePart) -> int:
    """How many items a part contributes."""
    if part.rows is not None:
        return len(part.rows)
    if isinstance(part, DevicePart):
        return part.planes[0].codes.shape[1] if part.planes else 0
    return len(part.planes[0].codes) if part.planes else 0


def to_device(parts: Sequence[Part], device: torch.device) -> list[DevicePart]:
    """Copy all vectors of the selected rows of every part; in the copies all rows are selected.

    Beside the copies this takes the memory of a few blocks.
    """
    return [_resident(part, device) for part in parts]


def stream(
    parts: Sequence[Part | DevicePart], device: torch.device, *, r_c: int, max_items: int
) -> Iterator[DevicePart]:
    """The first `r_c` vectors of all selected rows, in order, a block of items at a time.

    On CUDA a block is being copied while the one before it is in use.
    """
    copying = torch.cuda.Stream(device) if device.type == "cuda" else None
    waiting = None
    for span in _spans(parts, r_c=r_c, max_items=max_items):
        with nullcontext() if copying is None else torch.cuda.stream(copying):
            block = _load(span, device, r_c=r_c)
            loaded = None if copying is None else copying.record_event()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = block, loaded
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(block: DevicePart, loaded: "torch.cuda.Event | None") -> DevicePart:
    """Let the current stream wait for a block, and the block's memory for the current stream."""
    if loaded is not None:
        using = torch.cuda.current_stream(block.planes[0].codes.device)
        using.wait_event(loaded)
        for plane in block.planes:
            plane.codes.record_stream(using)
            if plane.scales is not None:
                plane.scales.record_stream(using)
    return block


def _spans(parts: Sequence[Part | DevicePart], *, r_c: int, max_items: int) -> Iterator[Span]:
    for part in parts:
        step = max_items
        if isinstance(part, Part):
            bytes_per_item = sum(
                stored.codes[:1, :width].nbytes for stored, width in _needed(part.planes, r_c)
            )
            step = max(1, min(step, STREAM_BYTES // max(1, bytes_per_item)))
        items = num_selected(part)
        for start in range(0, items, step):
            yield Span(part, start, min(start + step, items))


def _load(span: Span, device: torch.device, *, r_c: int) -> DevicePart:
    part, start, stop = span
    if isinstance(part, DevicePart):
        return _sliced(part, start, stop, r_c=r_c)
    rows = slice(start, stop) if part.rows is None else part.rows[start:stop]
    planes = []
    for dtype, run in itertools.groupby(_needed(part.planes, r_c), key=lambda one: one[0].dtype):
        codes, scales = [], []
        for stored, width in run:
            codes.append(_copied(stored.codes, rows, width, TENSOR_TYPES[dtype], device))
            if stored.scales is not None:
                scales.append(_copied(stored.scales, rows, width, torch.float32, device))
        planes.append(
            DevicePlane(dtype, _vector_major(codes), _vector_major(scales) if scales else None)
        )
    return DevicePart(tuple(planes), None)


def _needed(planes: Sequence[Stored], r_c: int) -> Iterator[tuple[Stored, int]]:
    """The planes that hold the first `r_c` vectors, and how many of them each one holds."""
    for stored in planes:
        width = min(r_c, stored.codes.shape[1])
        if width > 0:
            yield stored, width
        r_c -= width


def _copied(
    array: np.ndarray,
    rows: "slice | np.ndarray",
    width: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The first vectors of some rows, gathered in memory that the device can copy from by itself.

    PyTorch keeps page-locked memory for reuse, and from reuse until its copy has ended.
    """
    chosen = array[rows, :width]
    host = torch.empty(chosen.shape, dtype=dtype, pin_memory=device.type == "cuda")
    host.view(torch.uint8).numpy().view(array.dtype)[...] = chosen
    return host.to(device, non_blocking=True)


def _vector_major(pieces: list[Tensor]) -> Tensor:
    """Neighbouring planes, (rows, width, ...) each, as one (width, rows, ...)."""
    return torch.cat([piece.transpose(0, 1) for piece in pieces])


def _sliced(part: DevicePart, start: int, stop: int, *, r_c: int) -> DevicePart:
    rows = None if part.rows is None else part.rows[start:stop]
    items = slice(start, stop) if rows is None else slice(None)
    planes = []
    for dtype, codes, scales in part.planes:
        if r_c > 0:
            some_scales = None if scales is None else scales[:r_c, items]
            planes.append(DevicePlane(dtype, codes[:r_c, items], some_scales))
        r_c -= len(codes)
    return DevicePart(tuple(planes), rows)


def _resident(part: Part, device: torch.device) -> DevicePart:
    items = num_selected(part)
    width = sum(stored.codes.shape[1] for stored in part.planes)
    planes: list[DevicePlane] = []
    start = 0
    for block in stream([part], device, r_c=width, max_items=max(1, items)):
        planes = planes or [_empty_like(plane, items) for plane in block.planes]
        stop = start + num_selected(block)
        for whole, some in zip(planes, block.planes, strict=True):
            whole.codes[:, start:stop] = some.codes
            if whole.scales is not None and some.scales is not None:
                whole.scales[:, start:stop] = some.scales
        start = stop
    return DevicePart(tuple(planes), None)


def _empty_like(plane: DevicePlane, items: int) -> DevicePlane:
    width, _, length = plane.codes.shape
    scales = None if plane.scales is None else plane.scales.new_empty((width, items))
    return DevicePlane(plane.dtype, plane.codes.new_empty((width, items, length)), scales)
