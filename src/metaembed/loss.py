"""Matryoshka Multi-Vector Retrieval: one contrastive loss over nested prefixes of the vectors."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metaembed.budget import PAPER_GROUPS, Budget, parse_groups

Score = Literal["sum", "mean"]

CITATION = """
@inproceedings{xiao2026metaembed,
    title={MetaEmbed: Scaling Multimodal Retrieval at Test-Time with Flexible Late Interaction},
    author={Zilin Xiao and Qi Ma and Mengting Gu and Chun-cheng Jason Chen and Xintao Chen and
            Vicente Ordonez and Vijai Mohan},
    booktitle={International Conference on Learning Representations},
    year={2026},
    eprint={2509.18095},
}
"""


def mmr_loss(
    queries: Float[Tensor, "B R_q dim"],
    positives: Float[Tensor, "B R_c dim"],
    negatives: Float[Tensor, "B N R_c dim"] | None = None,
    *,
    groups: Sequence[Budget] = PAPER_GROUPS,
    weights: Sequence[float] | None = None,
    temperature: float = 0.03,
    score: Score = "sum",
) -> Float[Tensor, ""]:
    """Sum over groups of the contrastive loss at that group's prefixes (paper, eqs. 4, 6, 7).

    Row u's positive is `positives[u]`; its negatives are the other rows' positives and its own
    `negatives[u]`, never the hard negatives of other rows. Groups weigh 1 unless `weights` says
    otherwise. With `score="mean"` MaxSim is divided by `r_q`, which gives every group the same
    effective temperature; the paper sums.
    """
    similarities = torch.einsum("uid,vjd->uvij", queries, positives)  # (B, B, R_q, R_c)
    own = None if negatives is None else torch.einsum("uid,unjd->unij", queries, negatives)
    labels = torch.arange(len(queries), device=queries.device)
    losses = []
    for group in groups:
        logits = _prefix_scores(similarities, group)  # (B, B)
        if own is not None:
            logits = torch.cat([logits, _prefix_scores(own, group)], dim=1)  # (B, B + N)
        if score == "mean":
            logits = logits / group.query
        losses.append(F.cross_entropy(logits / temperature, labels))
    weight = torch.ones(len(losses)) if weights is None else torch.tensor(weights)
    return (torch.stack(losses) * weight.to(queries.device)).sum()


def _prefix_scores(
    similarities: Float[Tensor, "Q C R_q R_c"], group: Budget
) -> Float[Tensor, "Q C"]:
    """MaxSim of a group from similarities that all groups share (paper, eq. 4)."""
    prefix = similarities[..., : group.query, : group.candidate].float()
    return prefix.amax(dim=-1).sum(dim=-1)


class MMRLoss(nn.Module):
    """`mmr_loss` for sentence-transformers' `MultiVectorEncoderTrainer`.

    Columns of the data set, in order: query, positive, then any number of hard negatives. Groups
    default to the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        groups: Sequence[Budget | str] | None = None,
        weights: Sequence[float] | None = None,
        temperature: float = 0.03,
        score: Score = "sum",
    ) -> None:
        super().__init__()
        self.model = model
        own: Sequence[Budget | str] = getattr(model, "groups", PAPER_GROUPS)
        self.groups = parse_groups(own if groups is None else groups)
        if weights is not None and len(weights) != len(self.groups):
            raise ValueError(f"{len(self.groups)} groups need as many weights, not {len(weights)}.")
        if not temperature > 0:
            raise ValueError(f"Temperature must be positive, not {temperature}.")
        self.weights = None if weights is None else tuple(weights)
        self.temperature = temperature
        self.score: Score = score

    def forward(
        self,
        sentence_features: Iterable[dict[str, Any]],
        labels: Tensor | None = None,  # noqa: ARG002  (the trainer passes it)
    ) -> Float[Tensor, ""]:
        return self.of_embeddings(
            [self.model(dict(f))["token_embeddings"] for f in sentence_features]
        )

    def of_embeddings(self, columns: Sequence[Float[Tensor, "B r dim"]]) -> Float[Tensor, ""]:
        """The loss of embeddings in the order of the data set's columns."""
        query, *candidates = columns
        return mmr_loss(
            query,
            candidates[0],
            torch.stack(candidates[1:], dim=1) if len(candidates) > 1 else None,
            groups=self.groups,
            weights=self.weights,
            temperature=self.temperature,
            score=self.score,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {
            "groups": [str(group) for group in self.groups],
            "weights": self.weights,
            "temperature": self.temperature,
            "score": self.score,
        }

    @property
    def citation(self) -> str:
        """The paper, in BibTeX."""
        return CITATION
