"""Late interaction: scoring one set of vectors against another.

Every score in the project comes from `maxsim` or must equal it. Embeddings are rectangular (every
item has the same number of vectors), so nothing here takes a mask.
"""

import torch
from jaxtyping import Float
from torch import Tensor

MAX_BLOCK_ELEMENTS = 2**26
"""Size of the largest temporary of a scoring call: 256 MiB in float32."""


def maxsim(
    queries: Float[Tensor, "Q r_q dim"],
    candidates: Float[Tensor, "C r_c dim"],
    *,
    max_block_elements: int | None = None,
) -> Float[Tensor, "Q C"]:
    """Score every query against every candidate (paper, eqs. 2 and 4).

    Each query vector finds its best match among a candidate's vectors; the score is the sum of
    those matches. Scores therefore grow with `r_q` and are comparable only inside one budget.

    Returns float32 on the candidates' device, accumulated in float32 whatever the input, since
    half-precision sums tie. No temporary holds more than `max_block_elements` numbers (default
    `MAX_BLOCK_ELEMENTS`), short of a single query-candidate pair; under autograd every block is
    kept.
    """
    (Q, r_q, dim), (C, r_c, _) = queries.shape, candidates.shape
    if Q == 0 or C == 0:
        return candidates.new_zeros((Q, C), dtype=torch.float32)
    limit = MAX_BLOCK_ELEMENTS if max_block_elements is None else max_block_elements
    # A block of one side must itself fit in float32 beside its similarities.
    query_block = max(1, min(Q, limit // (r_q * max(r_c, dim))))
    candidate_block = max(1, limit // (r_c * max(query_block * r_q, dim)))
    rows = []
    for some_queries in queries.split(query_block):
        some_queries = some_queries.to(device=candidates.device, dtype=torch.float32)
        blocks = [
            _maxsim_block(some_queries, some_candidates.to(torch.float32))
            for some_candidates in candidates.split(candidate_block)
        ]
        rows.append(torch.cat(blocks, dim=1))
    return torch.cat(rows)


def _maxsim_block(
    queries: Float[Tensor, "Q r_q dim"], candidates: Float[Tensor, "C r_c dim"]
) -> Float[Tensor, "Q C"]:
    (Q, r_q, dim), (C, r_c, _) = queries.shape, candidates.shape
    similarities = queries.reshape(Q * r_q, dim) @ candidates.reshape(C * r_c, dim).T
    best = similarities.view(Q, r_q, C, r_c).amax(dim=-1)  # (Q, r_q, C)
    return best.sum(dim=1)  # (Q, C)
