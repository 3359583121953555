"""One ranking out of several whose scores do not compare."""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from metaembed.errors import IndexMismatchError

Id = TypeVar("Id", bound=Hashable)

K = 60.0
"""The constant of Cormack, Clarke and Büttcher (SIGIR 2009); the smaller, the more a first place
counts against many good ones."""


def reciprocal_rank_fusion(
    rankings: Sequence[Iterable[Id]], *, k: float = K, weights: Sequence[float] | None = None
) -> list[tuple[Id, float]]:
    """Score every id by the sum of `weight / (k + rank)` over the rankings that have it.

    Rankings are best first and ranks count from 1. Best first; equal scores come in the order of
    the first ranking, then of the next. A ranking of weight 0 is left out.

    >>> reciprocal_rank_fusion(["ab", "bc"], k=1)
    [('b', 0.8333333333333333), ('a', 0.5), ('c', 0.3333333333333333)]
    """
    weights = [1.0] * len(rankings) if weights is None else weights
    _require_usable(k, weights, len(rankings))
    shares: dict[Id, list[float]] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        # An id that is there twice counts where it is first.
        for rank, one in enumerate(dict.fromkeys(ranking) if weight else (), start=1):
            shares.setdefault(one, []).append(weight / (k + rank))
    # An exact sum does not depend on the order of the rankings; a stable sort keeps the first's.
    scores = {one: math.fsum(parts) for one, parts in shares.items()}
    return sorted(scores.items(), key=lambda scored: -scored[1])


def _require_usable(k: float, weights: Sequence[float], num_rankings: int) -> None:
    if not 0 <= k < math.inf:
        raise IndexMismatchError(f"k is {k!r}; ranks are fused with a finite k of 0 or more.")
    if len(weights) != num_rankings or not all(0 <= weight < math.inf for weight in weights):
        raise IndexMismatchError(
            f"weights are {list(weights)!r}; give each of the {num_rankings} rankings a finite "
            "weight of 0 or more."
        )
