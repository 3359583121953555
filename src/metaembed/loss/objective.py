"""The formula: a contrastive loss at every group (paper, eqs. 4, 6, 7), with masked negatives."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from metaembed.budget import PAPER_GROUPS, Budget, parse_groups
from metaembed.loss.prefixes import prefix_scores

Score = Literal["sum", "mean"]


class Objective(NamedTuple):
    """What decides the loss of given embeddings; see `mmr_loss`."""

    groups: tuple[Budget, ...] = PAPER_GROUPS
    weights: tuple[float, ...] | None = None
    temperature: float = 0.03
    score: Score = "sum"
    false_negative_margin: float | None = None
    max_block_elements: int | None = None


class Batch(NamedTuple):
    """Queries and what they are compared with; see `mmr_loss`."""

    queries: Float[Tensor, "B R_q dim"]
    positives: Float[Tensor, "C R_c dim"]
    negatives: Float[Tensor, "B N R_c dim"] | None = None
    offset: int = 0
    allowed: Bool[Tensor, "B C"] | None = None
    negatives_allowed: Bool[Tensor, "B N"] | None = None


def mmr_loss(  # noqa: PLR0913  (each part of the formula by its name)
    queries: Float[Tensor, "B R_q dim"],
    positives: Float[Tensor, "C R_c dim"],
    negatives: Float[Tensor, "B N R_c dim"] | None = None,
    *,
    groups: Sequence[Budget | str] = PAPER_GROUPS,
    weights: Sequence[float] | None = None,
    temperature: float = 0.03,
    score: Score = "sum",
    offset: int = 0,
    allowed: Bool[Tensor, "B C"] | None = None,
    negatives_allowed: Bool[Tensor, "B N"] | None = None,
    false_negative_margin: float | None = None,
    max_block_elements: int | None = None,
) -> Float[Tensor, ""]:
    """Sum over groups of the contrastive loss at that group's prefixes (paper, eqs. 4, 6, 7).

    Row u's positive is `positives[offset + u]`; its negatives are all other `positives` and its
    own `negatives[u]`, never the hard negatives of other rows. Where `allowed` or
    `negatives_allowed` is False, a candidate is no negative of that row; a positive always stays.
    Groups weigh 1 unless `weights` says otherwise. With `score="mean"` MaxSim is divided by `r_q`,
    which gives every group the same effective temperature; the paper sums.

    With `false_negative_margin` a candidate is no negative of a row either if its score at the
    largest group is more than that share of the positive's, for example 0.95 of it.
    `max_block_elements` bounds memory as in `prefix_scores`.
    """
    batch = Batch(queries, positives, negatives, offset, allowed, negatives_allowed)
    objective = Objective(
        parse_groups(groups),
        None if weights is None else tuple(weights),
        temperature,
        score,
        false_negative_margin,
        max_block_elements,
    )
    return weighted(group_losses(batch, objective), objective.weights)


def weighted(losses: Float[Tensor, " G"], weights: Sequence[float] | None) -> Float[Tensor, ""]:
    if weights is None:
        return losses.sum()
    parts = [loss * weight for loss, weight in zip(losses.unbind(), weights, strict=True)]
    return torch.stack(parts).sum()


def group_losses(batch: Batch, objective: Objective) -> Float[Tensor, " G"]:
    """The contrastive loss of every group, unweighted."""
    scores, is_in = _compared(batch, objective)  # (G, B, C + N)
    own = torch.arange(len(batch.queries), device=scores.device) + batch.offset  # (B,)
    is_in = is_in.scatter(1, own[:, None], True)
    if objective.false_negative_margin is not None:
        full = scores[-1].detach()
        bound = objective.false_negative_margin * full.gather(1, own[:, None])
        is_in = (is_in & ~(full > bound)).scatter(1, own[:, None], True)
    divisors = [
        objective.temperature * (group.query if objective.score == "mean" else 1)
        for group in objective.groups
    ]
    logits = torch.stack([some / divisor for some, divisor in zip(scores, divisors, strict=True)])
    logits = logits.masked_fill(~is_in, float("-inf"))
    labels = own.repeat(len(logits))
    losses = F.cross_entropy(logits.flatten(0, 1), labels, reduction="none")  # (G * B,)
    return losses.view(len(logits), -1).mean(dim=1)


def _compared(
    batch: Batch, objective: Objective
) -> tuple[Float[Tensor, "G B C_N"], Bool[Tensor, "B C_N"]]:
    """Scores of all candidates of a row, its own hard negatives last, and which of them count."""
    parts = [(batch.positives, batch.allowed)]
    if batch.negatives is not None:
        parts.append((batch.negatives, batch.negatives_allowed))
    scores, masks = [], []
    for candidates, allowed in parts:
        some = prefix_scores(
            batch.queries,
            candidates,
            groups=objective.groups,
            max_block_elements=objective.max_block_elements,
        )
        scores.append(some)
        masks.append(
            some.new_ones(some.shape[1:], dtype=torch.bool) if allowed is None else allowed
        )
    return torch.cat(scores, dim=2), torch.cat(masks, dim=1)
