"""Definitions spelled out, slow on purpose."""

import math

from torch import Tensor


def maxsim(queries: Tensor, candidates: Tensor) -> list[list[float]]:
    """Late interaction by three loops (paper, eq. 2)."""
    q_rows, c_rows = queries.double().tolist(), candidates.double().tolist()
    return [
        [
            sum(max(sum(a * b for a, b in zip(u, v, strict=True)) for v in c) for u in q)
            for c in c_rows
        ]
        for q in q_rows
    ]


def mmr_loss(queries, positives, negatives, groups, weights, temperature) -> float:
    """Equations 4, 6 and 7 of the paper, term by term; `negatives[u]` is a list for query u."""
    total = 0.0
    for group, weight in zip(groups, weights, strict=True):

        def s(query, candidate, group=group):  # eq. 4
            return maxsim(query[None, : group.query], candidate[None, : group.candidate])[0][0]

        loss = 0.0
        batch = len(queries)
        for u in range(batch):
            positive = math.exp(s(queries[u], positives[u]) / temperature)
            others = sum(
                math.exp(s(queries[u], positives[v]) / temperature) for v in range(batch) if v != u
            )
            hard = sum(math.exp(s(queries[u], c) / temperature) for c in negatives[u])
            loss -= math.log(positive / (positive + others + hard)) / batch  # eq. 6
        total += weight * loss  # eq. 7
    return total
