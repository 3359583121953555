"""How good a ranking is, query by query; the mean is the caller's.

Two forms. From `ranked` ids, best first, and `qrels` that give each query its relevant ids with
gains: one value for each query of `qrels`, in its order, and 0 for a query without results. From
the `ranks` of the one right candidate, counted from 1, where every query has exactly one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

Ranked = Mapping[str, Sequence[str]]
Qrels = Mapping[str, Mapping[str, float]]
PerQuery = Float[np.ndarray, " Q"]


def hit_at_k(ranked: Ranked, qrels: Qrels, *, k: int) -> PerQuery:
    """Say whether a relevant id is among the first `k`: 1 or 0."""
    return np.array([float(gains.any()) for gains in _gains(ranked, qrels, k)])


def recall_at_k(ranked: Ranked, qrels: Qrels, *, k: int) -> PerQuery:
    """Return the share of the relevant ids that is among the first `k`."""
    found = [np.count_nonzero(gains) for gains in _gains(ranked, qrels, k)]
    relevant = [sum(gain > 0 for gain in judged.values()) for judged in qrels.values()]
    return np.array(found, dtype=float) / np.maximum(relevant, 1)


def mrr_at_k(ranked: Ranked, qrels: Qrels, *, k: int) -> PerQuery:
    """Return one over the rank of the first relevant id, 0 beyond `k`."""
    firsts = [np.flatnonzero(gains)[:1] for gains in _gains(ranked, qrels, k)]
    return np.array([float((1 / (first + 1)).sum()) for first in firsts])


def ndcg_at_k(ranked: Ranked, qrels: Qrels, *, k: int) -> PerQuery:
    """Return the discounted gain over that of the best order; gains count linearly."""
    ideals = [_dcg(sorted(judged.values(), reverse=True)[:k]) for judged in qrels.values()]
    gained = [_dcg(gains) for gains in _gains(ranked, qrels, k)]
    return np.array(
        [dcg / ideal if ideal else 0.0 for dcg, ideal in zip(gained, ideals, strict=True)]
    )


def ranks_of_gold(
    scores: Float[np.ndarray, "Q N"], gold: Int[np.ndarray, " Q"]
) -> Int[np.ndarray, " Q"]:
    """Return the rank, from 1, of each query's one right candidate.

    Ties count against it, so that a scorer which says the same of everything ranks it last. NaN
    counts as a tie.
    """
    golden = np.take_along_axis(scores, gold[:, None], axis=1)
    return np.count_nonzero(~(scores < golden), axis=1)


def hit_from_ranks(ranks: Int[np.ndarray, " Q"], *, k: int) -> PerQuery:
    return (ranks <= k).astype(float)


def mrr_from_ranks(ranks: Int[np.ndarray, " Q"], *, k: int) -> PerQuery:
    return np.where(ranks <= k, 1 / ranks, 0.0)


def ndcg_from_ranks(ranks: Int[np.ndarray, " Q"], *, k: int) -> PerQuery:
    """Return nDCG where one candidate is right: `1 / log2(1 + rank)`, 0 beyond `k`."""
    return np.where(ranks <= k, 1 / np.log2(1.0 + ranks), 0.0)


def _gains(ranked: Ranked, qrels: Qrels, k: int) -> list[np.ndarray]:
    """Return, for each query, the gains of its first `k` ids; an id counts once."""
    return [
        np.array(
            [
                max(0.0, judged.get(id_, 0.0))
                for id_ in list(dict.fromkeys(ranked.get(query, ())))[:k]
            ]
        )
        for query, judged in qrels.items()
    ]


def _dcg(gains: Sequence[float] | np.ndarray) -> float:
    kept = np.maximum(np.asarray(gains, dtype=float), 0.0)
    return float((kept / np.log2(np.arange(2, len(kept) + 2))).sum())
