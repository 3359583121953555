"""Exact search: every selected row is scored, block by block, and the best are kept.

The definition that faster searches have to equal.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index.planes import cut
from metaembed.kernels import Best, Part
from metaembed.storage import decode, round_queries

if TYPE_CHECKING:
    import torch

MAX_BLOCK_ELEMENTS = 2**24
"""Numbers in any temporary of a search, 64 MiB in float32: the vectors of a block of candidates,
their similarities with the queries, and their scores. There are about five at once."""

TILE = 64
"""A multiple of what the matrix products of CPU libraries work off at a time."""


def top_k(
    queries: Float[np.ndarray, "Q r_q dim"], parts: Sequence[Part], *, r_c: int, k: int
) -> Best:
    """Find the `k` best of all selected rows by their first `r_c` vectors, or all that there are.

    Queries are rounded as the storage type has it.
    """
    import torch

    from metaembed.scoring import maxsim

    Q, r_q, dim = queries.shape
    num_rows = sum(_num_rows(part) for part in parts)
    if parts:
        queries = round_queries(queries, parts[0].planes[0].dtype)
    size = _block_size(num_rows, r_c, max(Q * r_q, dim))
    scores = torch.empty((Q, 0))
    rows = torch.empty((Q, 0), dtype=torch.int64)
    for start in range(0, num_rows if Q else 0, size):
        stop = min(start + size, num_rows)
        block = np.zeros((size, r_c, dim), np.float32)
        _read(parts, start, stop, out=block)
        new = maxsim(torch.from_numpy(queries), torch.from_numpy(block))[:, : stop - start]
        _require_finite(new, block)
        scores = torch.cat([scores, new], dim=1)
        rows = torch.cat([rows, torch.arange(start, stop).expand(Q, -1)], dim=1)
        # What was kept lies to the left of what came later, and a stable sort keeps it there.
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, rows = scores[:, :k], rows.gather(1, order[:, :k])
    return Best(scores.numpy(), rows.numpy())


def _num_rows(part: Part) -> int:
    return len(part.planes[0].codes) if part.rows is None else len(part.rows)


def _read(parts: Sequence[Part], start: int, stop: int, *, out: np.ndarray) -> None:
    """Decode the first vectors of selected rows, as many as `out` takes."""
    r_c, first = out.shape[1], 0
    for part in parts:
        low, high = max(start - first, 0), min(stop - first, _num_rows(part))
        if low < high:
            rows = slice(low, high) if part.rows is None else part.rows[low:high]
            place, vector = first + low - start, 0
            for plane in part.planes:
                width = min(plane.codes.shape[1], r_c - vector)
                vectors = decode(cut(plane, rows, 0, width))
                out[place : place + high - low, vector : vector + width] = vectors
                vector += width
        first += _num_rows(part)


def _block_size(num_rows: int, num_vectors: int, elements_per_vector: int) -> int:
    """How many rows to score at once.

    Always so many, the last block being filled up, and a multiple of `TILE` vectors: a matrix
    product rounds alike only in whole tiles of one shape, and identical items should tie.
    """
    step = TILE // math.gcd(TILE, num_vectors)
    fitting = MAX_BLOCK_ELEMENTS // (num_vectors * elements_per_vector)
    return max(1, min(fitting // step, -(-num_rows // step))) * step


def _require_finite(scores: "torch.Tensor", block: np.ndarray) -> None:
    if bool(scores.isfinite().all()):
        return
    if not np.isfinite(block).all():
        raise IndexFormatError(
            "The index is damaged: stored vectors are not finite. Run Index.verify() to find where."
        )
    raise IndexMismatchError("The scores overflow float32. Normalise the vectors.")
