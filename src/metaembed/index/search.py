"""Exact search: every live row is scored, block by block, and the best are kept.

The definition that faster searches have to equal.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metaembed.errors import IndexFormatError, IndexMismatchError

if TYPE_CHECKING:
    import torch

MAX_BLOCK_ELEMENTS = 2**24
"""Numbers in any temporary of a search, 64 MiB in float32: the vectors of a block of candidates,
their similarities with the queries, and their scores. There are about five at once."""

TILE = 64
"""A multiple of what the matrix products of CPU libraries work off at a time."""


class Best(NamedTuple):
    """The highest scores of every query, best first; equal scores in the order of the rows."""

    scores: Float[np.ndarray, "Q k"]
    rows: Int[np.ndarray, "Q k"]


def best_rows(
    queries: Float[np.ndarray, "Q r_q dim"],
    num_rows: int,
    read: Callable[[int, int], np.ndarray],
    *,
    num_vectors: int,
    k: int,
) -> Best:
    """Find the `k` best of `num_rows` rows, or all of them when there are fewer.

    `read(start, stop)` gives the first `num_vectors` vectors of those rows in float32.
    """
    import torch

    from metaembed.scoring import maxsim

    Q, r_q, dim = queries.shape
    size = _block_size(num_rows, num_vectors, max(Q * r_q, dim))
    scores = torch.empty((Q, 0))
    rows = torch.empty((Q, 0), dtype=torch.int64)
    for start in range(0, num_rows if Q else 0, size):
        stop = min(start + size, num_rows)
        block = read(start, stop)  # (stop - start, r_c, dim)
        if len(block) < size:
            rest = np.zeros((size - len(block), num_vectors, dim), np.float32)
            block = np.concatenate([block, rest])  # (size, r_c, dim)
        new = maxsim(torch.from_numpy(queries), torch.from_numpy(block))[:, : stop - start]
        _require_finite(new, block)
        scores = torch.cat([scores, new], dim=1)
        rows = torch.cat([rows, torch.arange(start, stop).expand(Q, -1)], dim=1)
        # What was kept lies to the left of what came later, and a stable sort keeps it there.
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, rows = scores[:, :k], rows.gather(1, order[:, :k])
    return Best(scores.numpy(), rows.numpy())


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
