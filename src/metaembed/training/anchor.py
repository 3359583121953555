"""Tying a new model's first vector to what its backbone already knows."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metaembed.loss import MMRLoss
from metaembed.model import MetaEmbed


class AnchoredMMRLoss(MMRLoss):
    """MMR plus `weight` times the angle between each first vector and the backbone's own vector.

    The backbone's vector is the mean of its token states without meta tokens or adapter, through
    `projection` (its principal directions, see `principal_directions`). A sentence encoder knows
    a useful vector already; this hands it to the first meta token within a few hundred steps,
    which contrastive training alone would take far longer to find.
    """

    def __init__(
        self,
        model: MetaEmbed,
        backbone: nn.Module,
        projection: Float[Tensor, "dim hidden"],
        *,
        weight: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        # Kept out of the module tree: it is neither trained nor saved.
        self._anchor = (backbone.eval().requires_grad_(False), projection)
        self._meta_ids = torch.tensor(model[0].meta_token_ids)
        self.weight = weight

    def forward(
        self,
        sentence_features: Iterable[dict[str, Any]],
        labels: Tensor | None = None,  # noqa: ARG002  (the trainer passes it)
    ) -> Float[Tensor, ""]:
        columns = list(sentence_features)
        embeddings = [self.model(dict(column))["token_embeddings"] for column in columns]
        loss = self.of_embeddings(embeddings)
        for column, embedding in zip(columns[:2], embeddings[:2], strict=True):
            anchor = self._anchor_of(column)
            loss = loss + self.weight * (1 - (embedding[:, 0].float() * anchor).sum(-1)).mean()
        return loss

    @torch.no_grad()
    def _anchor_of(self, column: dict[str, Any]) -> Float[Tensor, "B dim"]:
        backbone, projection = self._anchor
        ids, mask = column["input_ids"], column["attention_mask"].bool()
        mask = mask & ~torch.isin(ids, self._meta_ids.to(ids.device))
        width = int(mask.sum(1).max())  # the item stands before its meta tokens
        mask = mask[:, :width]
        ids = ids[:, :width].masked_fill(~mask, 0)  # the backbone has no rows for meta tokens
        states = backbone(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return mean_pooled(states.float(), mask, projection)


def mean_pooled(
    states: Float[Tensor, "B T hidden"], mask: Tensor, projection: Float[Tensor, "dim hidden"]
) -> Float[Tensor, "B dim"]:
    """Mean of the states under the mask, projected and normalised."""
    weights = mask.unsqueeze(-1).float()
    mean = (states * weights).sum(1) / weights.sum(1)
    return F.normalize(mean @ projection.T, dim=-1)


def principal_directions(
    vectors: Float[Tensor, "N hidden"], dim: int
) -> Float[Tensor, "dim hidden"]:
    """The `dim` orthonormal directions that keep most of the vectors' inner products."""
    return torch.linalg.svd(vectors.float(), full_matrices=False).Vh[:dim].clone()
