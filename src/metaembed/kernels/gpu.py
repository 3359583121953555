"""Late interaction on a GPU, over parts in its memory or streamed into it.

Equal to the definition up to the rounding of sums, and exact in the order of equal scores.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaembed.errors import MetaEmbedError
from metaembed.kernels import device as device_memory
from metaembed.kernels.device import DevicePart, num_selected
from metaembed.kernels.parts import Best, Part, overflow
from metaembed.storage import StorageType

if TYPE_CHECKING:
    from metaembed.kernels.triton_maxsim import Prepared

MAX_BLOCK_ELEMENTS = 2**26
"""Scores, or maxima between planes of two storage types, at a time: 256 MiB."""

LEAST_CAPABILITY = (8, 0)
"""Ampere, the first whose tensor cores multiply bfloat16."""


def available() -> bool:
    """Whether this machine has Triton and a CUDA device for it, or Triton's interpreter is on."""
    return _obstacle() is None


def default_device() -> torch.device:
    """The current CUDA device; raises `MetaEmbedError` where none can be used."""
    obstacle = _obstacle()
    if obstacle is not None:
        raise MetaEmbedError(f"Scoring on a GPU needs {obstacle}. Score on the CPU instead.")
    if _is_interpreted():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _obstacle() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton, which is not installed (pip install triton)"
    if _is_interpreted():
        return None
    if not torch.cuda.is_available():
        return "a CUDA device, and PyTorch finds none"
    capability = torch.cuda.get_device_capability()
    if capability < LEAST_CAPABILITY:
        return f"compute capability 8.0, and this device has {capability[0]}.{capability[1]}"
    return None


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def to_device(parts: Sequence[Part], device: torch.device | None = None) -> list[DevicePart]:
    """Copy the selected rows of every part into device memory, to search them many times."""
    return device_memory.to_device(parts, device or default_device())


def top_k(
    queries: Float[np.ndarray, "Q r_q dim"],
    parts: Sequence[Part | DevicePart],
    *,
    r_c: int,
    k: int,
    device: torch.device | None = None,
) -> Best:
    """The `k` best items of every query, or all of them when there are fewer.

    What lies in host memory, in mapped files for example, is copied to `device` in blocks (default:
    where the other parts are, or the current CUDA device).
    """
    device = device or _device_of(parts)
    scores = torch.empty((len(queries), 0), device=device)
    positions = torch.empty((len(queries), 0), dtype=torch.int64, device=device)
    start = 0
    for block in _score_blocks(queries, parts, r_c=r_c, device=device):
        new, columns = first_best(block, min(k, block.shape[1]))
        # What was found before comes first, and so it stays where scores are equal.
        scores = torch.cat([scores, new], dim=1)
        positions = torch.cat([positions, columns + start], dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, positions = scores[:, :k], positions.gather(1, order[:, :k])
        start += block.shape[1]
    return Best(scores.cpu().numpy(), positions.cpu().numpy())


def scores(
    queries: Float[np.ndarray, "Q r_q dim"],
    parts: Sequence[Part | DevicePart],
    *,
    r_c: int,
    device: torch.device | None = None,
) -> Float[np.ndarray, "Q items"]:
    """The score of every item for every query."""
    device = device or _device_of(parts)
    blocks = _score_blocks(queries, parts, r_c=r_c, device=device)
    empty = np.empty((len(queries), 0), np.float32)
    return np.concatenate([empty, *(block.cpu().numpy() for block in blocks)], axis=1)


def first_best(
    scores: Float[Tensor, "Q n"], k: int
) -> tuple[Float[Tensor, "Q k"], Int[Tensor, "Q k"]]:
    """The `k` highest scores of every row and their columns; equal scores by ascending column."""
    if k == 0:
        return scores[:, :0], scores.new_empty((len(scores), 0), dtype=torch.int64)
    found, columns = scores.topk(k, dim=1)
    # Among scores equal to the last one, topk has taken any. Rows where it had a choice are few.
    last = found[:, -1:]
    is_tied = (scores == last).sum(dim=1) > (found == last).sum(dim=1)
    for row in is_tied.nonzero().flatten().tolist():
        enough = (~(scores[row] < last[row])).nonzero().flatten()
        order = scores[row, enough].sort(descending=True, stable=True).indices
        columns[row] = enough[order[:k]]
    columns = columns.sort(dim=1).values
    found, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return found, columns.gather(1, order)


def _device_of(parts: Sequence[Part | DevicePart]) -> torch.device:
    for part in parts:
        if isinstance(part, DevicePart) and part.planes:
            return part.planes[0].codes.device
    return default_device()


def _score_blocks(
    queries: np.ndarray,
    parts: Sequence[Part | DevicePart],
    *,
    r_c: int,
    device: torch.device,
) -> Iterator[Float[Tensor, "Q n"]]:
    """The scores of all items in order, some at a time."""
    if len(queries) == 0:
        yield torch.empty((0, sum(map(num_selected, parts))), device=device)
        return
    is_mixed = any(len({plane.dtype for plane in part.planes}) > 1 for part in parts)
    columns = len(queries) * (queries.shape[1] if is_mixed else 1)
    scorer = _Scorer(queries, device)
    blocks = device_memory.stream(
        parts, device, r_c=r_c, max_items=max(1, MAX_BLOCK_ELEMENTS // columns)
    )
    for block in blocks:
        with _current(device):
            scores = scorer.scores(block)
        if not bool(torch.stack(torch.aminmax(scores)).isfinite().all()):
            raise overflow()
        yield scores


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class _Scorer:
    """Queries, and what has been made of them for each storage type so far."""

    def __init__(self, queries: Float[np.ndarray, "Q r_q dim"], device: torch.device):
        self._queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._device = device
        self._prepared: dict[StorageType, list[Prepared]] = {}

    def scores(self, block: DevicePart) -> Float[Tensor, "Q n"]:
        per_plane = [self._for(plane.dtype) for plane in block.planes]
        # Usually one: queries of more vectors than a tile has are scored in several goes.
        goes = [self._partial(block, prepared) for prepared in zip(*per_plane, strict=True)]
        return goes[0] if len(goes) == 1 else torch.stack(goes).sum(dim=0)

    def _partial(self, block: DevicePart, queries: Sequence["Prepared"]) -> Float[Tensor, "Q n"]:
        from metaembed.kernels.triton_maxsim import maxsim

        found: Tensor | None = None
        for number, (plane, prepared) in enumerate(zip(block.planes, queries, strict=True), 1):
            last = number == len(block.planes)
            found = maxsim(prepared, plane, rows=block.rows, maxima=found, last=last)
        assert found is not None
        return found

    def _for(self, dtype: StorageType) -> list["Prepared"]:
        from metaembed.kernels.triton_maxsim import MAX_QUERY_VECTORS, prepare

        if dtype not in self._prepared:
            self._prepared[dtype] = [
                prepare(self._queries[:, start : start + MAX_QUERY_VECTORS], dtype, self._device)
                for start in range(0, self._queries.shape[1], MAX_QUERY_VECTORS)
            ]
        return self._prepared[dtype]
