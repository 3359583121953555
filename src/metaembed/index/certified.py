"""The exact hits by way of the sketch, with a proof that no other item can be among them.

For a query vector q scored as q' against a sketched vector c' that stands for c,

    |q.c - q'.c'| <= |q - q'| |c'| + |q| |c - c'|,

and a maximum or a sum of numbers moves no more than they do. So with the largest |c'| and |c - c'|
of an item, which the index keeps beside its sketch, the item's score is within

    slack = sum_i |q_i - q'_i| max_j |c'_j| + sum_i |q_i| max_j |c_j - c'_j|

of what the sketch gives. Items whose upper bound is under the k-th best lower bound are out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metaembed.budget import Budget
from metaembed.index.snapshot import Snapshot
from metaembed.index.store import Store
from metaembed.kernels import Best
from metaembed.storage import StorageType, round_queries

ROUNDING = 1e-5
"""What float32 sums may add to either score, as a share of the norms' products."""

QUERIES_AT_ONCE = 16


class Proof(NamedTuple):
    """How much of the full scoring a certified search needed."""

    scored: int
    """Items that were scored in full."""
    items: int


def search(
    store: Store,
    snapshot: Snapshot,
    queries: Float[np.ndarray, "Q r_q dim"],
    *,
    budget: Budget,
    k: int,
) -> list[tuple[Best, Proof]]:
    """What an exact search gives for each query alone, bit for bit, and what it took."""
    sketch = store.candidates(snapshot, budget.candidate, sketch=True)
    full = store.candidates(snapshot, budget.candidate)
    errors = store.sketch_errors(snapshot, budget.candidate)  # (items, 2)
    dtypes = store.manifest.plane_dtypes[0], store.manifest.sketch
    found = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        some = queries[start : start + QUERIES_AT_ONCE]
        weights = _weights(some, *dtypes)  # (Q, 2)
        for query, scores, weight in zip(some, sketch.scores(some), weights, strict=True):
            slack = errors @ weight
            positions = _possible(scores, slack, k)
            best = full.at(positions).top_k(query[None], k)
            hits = Best(best.scores[0], positions[best.positions[0]])
            found.append((hits, Proof(len(positions), len(scores))))
    return found


def _weights(
    queries: Float[np.ndarray, "Q r_q dim"], full: StorageType, sketch: StorageType | None
) -> Float[np.ndarray, "Q 2"]:
    """By what an item's largest miss and its largest norm count."""
    assert sketch is not None
    exact = round_queries(queries, full).astype(np.float64)
    rounded = round_queries(queries, sketch).astype(np.float64)
    norms = np.linalg.norm(exact, axis=-1).sum(axis=-1)
    missed = np.linalg.norm(exact - rounded, axis=-1).sum(axis=-1)
    return np.stack([norms, missed + ROUNDING * norms], axis=-1)


def _possible(
    scores: Float[np.ndarray, " n"], slack: Float[np.ndarray, " n"], k: int
) -> "np.ndarray":
    """Ascending positions of the items that may be among the best k."""
    if len(scores) <= k:
        return np.arange(len(scores))
    lower = scores - slack
    least = np.partition(lower, len(lower) - k)[len(lower) - k]
    return np.flatnonzero(scores + slack >= least)
