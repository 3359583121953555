"""Tying a new model's vectors to what its backbone already knows."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metaembed.backbones import resolve_backbone
from metaembed.loss import MMRLoss
from metaembed.loss.columns import Column, parted
from metaembed.model import MetaEmbed
from metaembed.windows import added, windows

SAMPLED_WINDOWS = (1, 4, 8)
"""Parts of the sampled texts whose vectors count, so that whole texts and parts are kept alike."""


class AnchoredMMRLoss(MMRLoss):
    """MMR plus `anchor` times the distance of every vector from its anchor.

    The anchor of a vector is the mean of the backbone's own token states, without meta tokens or
    adapter, over the part of the item that the vector looks after (`metaembed.windows`), through
    `projection`. The first one is thus the vector of the sentence encoder that the backbone was;
    scoring the anchors of both sides by late interaction is already a little better than that
    vector alone. Contrastive training by itself would take far longer to get there.
    """

    def __init__(
        self,
        model: MetaEmbed,
        backbone: nn.Module,
        projection: Float[Tensor, "dim hidden"],
        *,
        anchor: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        # Kept out of the module tree: it is neither trained nor saved.
        self._backbone = (backbone.eval().requires_grad_(False),)
        self._projection = projection
        self._meta_ids = torch.tensor(model[0].meta_token_ids)
        self._counts = (
            added([group.query for group in self.groups]),
            added([group.candidate for group in self.groups]),
        )
        self.anchor = anchor

    def forward(
        self,
        sentence_features: Iterable[dict[str, Any]],
        labels: Tensor | None = None,  # noqa: ARG002  (the trainer passes it)
    ) -> Float[Tensor, ""]:
        columns, marks = parted(sentence_features)
        embeddings = [self.model(dict(column))["token_embeddings"] for column in columns]
        loss = self.of_columns(list(map(Column, embeddings, marks)))
        for column, embedding, counts in zip(columns, embeddings, self._counts, strict=False):
            anchors = self._anchors(column, counts)  # (B, r, dim)
            distance = 1 - (embedding.float() * anchors).sum(-1)
            loss = loss + self.anchor * distance.mean()
        return loss

    @torch.no_grad()
    def _anchors(self, column: dict[str, Any], counts: Sequence[int]) -> Float[Tensor, "B r dim"]:
        ids, mask = column["input_ids"], column["attention_mask"].bool()
        mask = mask & ~torch.isin(ids, self._meta_ids.to(ids.device))
        width = int(mask.sum(1).max())  # the item stands before its meta tokens
        mask = mask[:, :width]
        ids = ids[:, :width].masked_fill(~mask, 0)  # the backbone has no rows for meta tokens
        states = self._backbone[0](input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return pooled(states.float(), mask, counts, self._projection.to(states.device))


def backbone_of(model: MetaEmbed, name: str) -> nn.Module:
    """The backbone by itself, without meta tokens or adapter."""
    from transformers import AutoModel

    backbone: nn.Module = AutoModel.from_pretrained(
        resolve_backbone(name),
        use_safetensors=True,
        attn_implementation=model[0].config._attn_implementation,
    )
    return backbone.to(model.device).eval()


@torch.inference_mode()
def set_projection(
    model: MetaEmbed, backbone: nn.Module, texts: Sequence[str], *, max_tokens: int | None
) -> Float[Tensor, "dim hidden"]:
    """Set the model's projection to the principal directions of the backbone's states of texts.

    Without a projection, the identity is returned and nothing is set.
    """
    if len(model) == 2:
        return torch.eye(model[0].get_embedding_dimension())
    vectors = []
    for start in range(0, len(texts), 32):
        batch = model.tokenizer(
            list(texts[start : start + 32]),
            padding=True,
            truncation=True,
            max_length=max_tokens,
            return_tensors="pt",
        ).to(model.device)
        states = backbone(**batch).last_hidden_state
        identity = torch.eye(states.shape[-1], device=states.device)
        mask = batch["attention_mask"].bool()
        vectors.append(pooled(states, mask, SAMPLED_WINDOWS, identity).flatten(0, 1))
    weight: Tensor = model[1].linear.weight
    projection = principal_directions(torch.cat(vectors), weight.shape[0])
    weight.copy_(projection)
    return projection.clone()


def pooled(
    states: Float[Tensor, "B T hidden"],
    mask: Bool[Tensor, "B T"],
    counts: Sequence[int],
    projection: Float[Tensor, "dim hidden"],
) -> Float[Tensor, "B R dim"]:
    """Mean of the states in every window, projected and normalised."""
    starts, stops = windows(mask.sum(1), counts)
    sums = F.pad((states * mask.unsqueeze(-1)).cumsum(dim=1), (0, 0, 1, 0))  # (B, T + 1, hidden)

    def upto(ends: Tensor) -> Tensor:
        return sums.gather(1, ends.unsqueeze(-1).expand(-1, -1, sums.shape[-1]))

    means = (upto(stops) - upto(starts)) / (stops - starts).unsqueeze(-1)
    return F.normalize(means @ projection.T, dim=-1)


def principal_directions(
    vectors: Float[Tensor, "N hidden"], dim: int
) -> Float[Tensor, "dim hidden"]:
    """The `dim` orthonormal directions that keep most of the vectors' inner products."""
    return torch.linalg.svd(vectors.float(), full_matrices=False).Vh[:dim].clone()
