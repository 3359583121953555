"""The kernel that needs nothing but torch: blocks of candidates decoded and scored by `maxsim`."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from metaembed.kernels.parts import Best, Part, num_items, overflow
from metaembed.storage import Stored, decode, round_queries

if TYPE_CHECKING:
    import torch

MAX_BLOCK_ELEMENTS = 2**24
"""Numbers in any temporary of a search, 64 MiB in float32: the vectors of a block of candidates,
their similarities with the queries, and their scores. There are about five at once."""

TILE = 64
"""A multiple of what the matrix products of CPU libraries work off at a time."""


def search(
    queries: Float[np.ndarray, "Q r_q dim"], parts: Sequence[Part], *, r_c: int, k: int
) -> Best:
    """The best `k` items of each query; all scores, and no positions, when `k` is 0."""
    import torch

    total, Q = num_items(parts), len(queries)
    k = min(k, total)
    if not Q or not total:
        return Best(np.empty((Q, k or total), np.float32), np.empty((Q, k), np.int64))
    rounded = torch.from_numpy(round_queries(queries, parts[0].planes[0].dtype))
    every, best = [], torch.empty((Q, 0))
    positions = torch.empty((Q, 0), dtype=torch.int64)
    start = 0
    for scores in _scores_by_block(rounded, parts, r_c):
        if not bool(scores.isfinite().all()):
            raise overflow()
        if not k:
            every.append(scores)
            continue
        stop = start + scores.shape[1]
        best = torch.cat([best, scores], dim=1)
        positions = torch.cat([positions, torch.arange(start, stop).expand(Q, -1)], dim=1)
        # What was kept lies to the left of what came later, and a stable sort keeps it there.
        best, order = best.sort(dim=1, descending=True, stable=True)
        best, positions = best[:, :k], positions.gather(1, order[:, :k])
        start = stop
    scores = best if k else torch.cat(every, dim=1)
    return Best(scores.numpy(), positions.numpy())


def _scores_by_block(
    queries: "torch.Tensor", parts: Sequence[Part], r_c: int
) -> Iterator["torch.Tensor"]:
    """Yield the scores (Q, n) of one block of items after another."""
    import torch

    from metaembed.scoring import maxsim

    Q, r_q, dim = queries.shape
    size = _block_size(num_items(parts), r_c, max(Q * r_q, dim))
    for part in parts:
        total = num_items([part])
        for start in range(0, total, size):
            stop = min(start + size, total)
            rows = slice(start, stop) if part.rows is None else part.rows[start:stop]
            block = np.zeros((size, r_c, dim), np.float32)
            block[: stop - start] = decoded(part.planes, rows, r_c)
            yield maxsim(queries, torch.from_numpy(block))[:, : stop - start]


def decoded(
    planes: Sequence[Stored], rows: "slice | np.ndarray", r_c: int
) -> Float[np.ndarray, "n r_c dim"]:
    """The first `r_c` vectors of some rows in float32."""
    vectors, left = [], r_c
    for plane in planes:
        if left <= 0:
            break
        codes = plane.codes[rows, :left]
        scales = None if plane.scales is None else plane.scales[rows, :left]
        vectors.append(decode(plane._replace(codes=codes, scales=scales)))
        left -= vectors[-1].shape[1]
    return np.concatenate(vectors, axis=1)


def _block_size(num_rows: int, num_vectors: int, elements_per_vector: int) -> int:
    """How many rows to score at once.

    Always so many, the last block being filled up, and a multiple of `TILE` vectors: a matrix
    product rounds alike only in whole tiles of one shape, and identical items should tie.
    """
    step = TILE // math.gcd(TILE, num_vectors)
    fitting = MAX_BLOCK_ELEMENTS // (num_vectors * elements_per_vector)
    return max(1, min(fitting // step, -(-num_rows // step))) * step
