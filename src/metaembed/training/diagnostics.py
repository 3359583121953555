"""What can go wrong inside multi-vector embeddings, measured on one batch.

A loss that falls does not show it: vectors of an item may become the same, some may never be
anyone's best match, and a group may find nothing that a smaller one does not.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metaembed.budget import Budget, parse_groups
from metaembed.errors import ItemError
from metaembed.loss.prefixes import best_matches, similarities_of
from metaembed.scoring import MAX_BLOCK_ELEMENTS

COLLAPSE = 0.98
"""Mean cosine of two vectors of an item above which they say the same."""
FEWEST_WINS = 8
"""Wins that a vector would have if all won alike, for one without any to count as dead."""
FEWEST_ROWS = 8
"""Of a batch whose ranking can be told from chance."""
PERFECT = 0.999
"""NDCG of a group that leaves the next one nothing to add."""


class Diagnostics(NamedTuple):
    query_cosine_mean: float
    """Between two vectors of the same query, over all pairs of all queries; 0 without any pair."""
    query_cosine_max: float
    candidate_cosine_mean: float
    candidate_cosine_max: float
    wins: tuple[float, ...]
    """Share of best matches, at the largest group, that each candidate vector is."""
    wins_by_group: dict[str, float]
    """The same, summed over the vectors that each group adds to the one before."""
    hit_at_1: dict[str, float]
    """Share of queries whose own candidate scores highest in the batch, by group."""
    ndcg: dict[str, float]
    """NDCG of each query's own candidate among the batch's, by group."""
    warnings: tuple[str, ...]

    @property
    def gain(self) -> dict[str, float]:
        """What each group's NDCG adds to that of the group before."""
        return {
            large: self.ndcg[large] - self.ndcg[small]
            for small, large in itertools.pairwise(self.ndcg)
        }

    def to_dict(self) -> dict[str, Any]:
        """Numbers and words alone, as for JSON or a tracker."""
        return {
            **self._asdict(),
            "wins": list(self.wins),
            "gain": self.gain,
            "warnings": list(self.warnings),
        }


@torch.no_grad()
def diagnose(
    queries: Float[Tensor, "B R_q dim"],
    candidates: Float[Tensor, "B R_c dim"],
    groups: Sequence[Budget | str],
) -> Diagnostics:
    """Examine a batch whose candidate u belongs to query u.

    Best matches are counted over all pairs of the batch. Where other candidates score as high as
    the own one, they rank before it. Raises `ItemError` for an empty batch, `BudgetError` if a
    group is larger than the embeddings.
    """
    nested = parse_groups(groups)
    if len(queries) != len(candidates) or not len(queries):
        raise ItemError(
            f"{len(queries)} queries and {len(candidates)} candidates are no batch to diagnose; "
            "give as many of one as of the other, and at least one."
        )
    limit = nested[-1]
    limit.require_fits(Budget(queries.shape[1], candidates.shape[1]), of="these embeddings")
    queries = F.normalize(queries[:, : limit.query].float(), dim=-1)
    candidates = F.normalize(candidates[:, : limit.candidate].float(), dim=-1)
    wins, ranks = _wins_and_ranks(queries, candidates, nested)
    names = [str(group) for group in nested]
    ends = [0, *(group.candidate for group in nested)]
    shares = wins[-1] / wins[-1].sum()
    by_group = [shares[start:end].sum() for start, end in itertools.pairwise(ends)]
    gains = 1 / torch.log2(1 + ranks.double())  # (G, B)
    found = Diagnostics(
        *_cosine(queries),
        *_cosine(candidates),
        tuple(shares.tolist()),
        _by_name(names, torch.stack(by_group)),
        _by_name(names, (ranks == 1).double().mean(dim=1)),
        _by_name(names, gains.mean(dim=1)),
        (),
    )
    return found._replace(warnings=tuple(_warnings(found, wins, len(queries))))


def _wins_and_ranks(
    queries: Float[Tensor, "B R_q dim"],
    candidates: Float[Tensor, "B R_c dim"],
    groups: tuple[Budget, ...],
) -> tuple[Float[Tensor, "G R_c"], Int[Tensor, "G B"]]:
    """How often each vector is the best match, and the rank of each query's own candidate."""
    (B, R_q, _), R_c = queries.shape, candidates.shape[1]
    block = max(1, MAX_BLOCK_ELEMENTS // (B * R_q * R_c))
    wins = torch.zeros(len(groups), R_c, dtype=torch.float64, device=queries.device)
    ranks = torch.empty(len(groups), B, dtype=torch.int64, device=queries.device)
    for start in range(0, B, block):
        rows = torch.arange(start, min(start + block, B), device=queries.device)
        matches = best_matches(similarities_of(queries[rows], candidates), groups)
        for number, (best, index) in enumerate(matches):
            wins[number] += torch.bincount(index.flatten(), minlength=R_c)
            scores = best.sum(dim=1)  # (b, B)
            own = scores.gather(1, rows[:, None])
            ranks[number, rows] = (scores >= own).sum(dim=1)  # itself included
    return wins, ranks


def _cosine(vectors: Float[Tensor, "B r dim"]) -> tuple[float, float]:
    """Mean and maximum between two vectors of an item."""
    r = vectors.shape[1]
    if r == 1:
        return 0.0, 0.0
    is_pair = torch.ones(r, r, dtype=torch.bool, device=vectors.device).triu(diagonal=1)
    cosines = (vectors @ vectors.mT)[:, is_pair]  # (B, pairs)
    return float(cosines.mean()), float(cosines.max())


def _by_name(names: Sequence[str], values: Tensor) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def _warnings(found: Diagnostics, wins: Float[Tensor, "G R_c"], rows: int) -> list[str]:
    warnings = []
    cosines = {"query": found.query_cosine_mean, "candidate": found.candidate_cosine_mean}
    for side, cosine in cosines.items():
        if cosine > COLLAPSE:
            warnings.append(
                f"The vectors of a {side} are nearly the same: their mean cosine is "
                f"{cosine:.3f}, so more of them cannot say more."
            )
    if wins[-1].sum() >= FEWEST_WINS * wins.shape[1]:
        dead = (wins.sum(dim=0) == 0).nonzero().flatten().tolist()
        if dead:
            warnings.append(
                f"Candidate vectors that are never a best match, at any group: {_ranges(dead)} "
                f"(of 0 to {wins.shape[1] - 1})."
            )
    if rows >= FEWEST_ROWS:
        warnings += _dead_groups(found, rows)
    return warnings


def _dead_groups(found: Diagnostics, rows: int) -> list[str]:
    chance = sum(1 / math.log2(1 + rank) for rank in range(1, rows + 1)) / rows
    warnings = [
        f"Group {name} ranks a batch of {rows} no better than chance: NDCG {ndcg:.3f}, "
        f"by chance {chance:.3f}."
        for name, ndcg in found.ndcg.items()
        if ndcg <= chance
    ]
    for small, large in itertools.pairwise(found.ndcg):
        if found.ndcg[small] < PERFECT and found.gain[large] <= 0:
            warnings.append(
                f"Group {large} adds nothing to {small}: NDCG {found.ndcg[large]:.3f} after "
                f"{found.ndcg[small]:.3f}."
            )
    return warnings


def _ranges(numbers: Sequence[int]) -> str:
    """
    >>> _ranges([3, 4, 5, 9])
    '3-5, 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
