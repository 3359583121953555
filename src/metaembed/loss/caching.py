"""GradCache (arXiv 2101.06983): large batches in the memory of small ones.

All items are embedded without gradients, mini batch by mini batch; the loss of the whole batch
gives the gradients of the embeddings; then every mini batch is embedded again, with the random
numbers of the first time, and its gradients go on into the model.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import (
    CachedLossMixin,
    RandContext,
    _create_minibatch,
)
from torch import Tensor, nn


class CachedLoss(CachedLossMixin):
    """sentence-transformers' GradCache around a loss of embeddings."""

    def __init__(
        self,
        model: nn.Module,
        of_embeddings: Callable[[Sequence[Tensor]], Tensor],
        *,
        mini_batch_size: int,
    ) -> None:
        self.model = model
        self.of_embeddings = of_embeddings
        self.mini_batch_size = mini_batch_size

    def calculate_loss(
        self,
        reps: list[list[Tensor]],
        labels: Tensor | None = None,  # noqa: ARG002  (the library passes it)
        *,
        with_backward: bool = False,
    ) -> Tensor:
        loss = self.of_embeddings([torch.cat(column) for column in reps])
        if not with_backward:
            return loss
        loss.backward()
        return loss.detach()

    def embed_minibatch(
        self,
        sentence_feature: dict[str, Any],
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        features = _create_minibatch(sentence_feature, begin, end)
        with random_state or nullcontext(), torch.set_grad_enabled(with_grad):
            kept = RandContext(*features.values()) if copy_random_state else None
            return self.model(features)["token_embeddings"], kept
