"""The loss that the trainer takes: it embeds a batch's columns and compares them."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from metaembed.budget import PAPER_GROUPS, Budget, parse_groups
from metaembed.errors import RecipeError
from metaembed.loss.columns import Column, batch_of, parted
from metaembed.loss.objective import Objective, Score, group_losses, weighted
from metaembed.loss.processes import gathered, is_alone

Gather = Literal["none", "positives", "all"]
GATHERS = ("none", "positives", "all")

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


class MMRLoss(nn.Module):
    """`mmr_loss` for sentence-transformers' `MultiVectorEncoderTrainer`.

    Columns of the data set, in order: query, positive, then any number of hard negatives. Groups
    default to the model's. Features may carry marks (`metaembed.loss.columns.Marks`): items with
    equal keys do not become each other's negatives, and absent hard negatives do not count.

    With `mini_batch_size` the model sees that many items at a time (GradCache): a larger batch in
    the same memory for one more forward pass, with the same gradients.

    With several processes `gather="positives"` makes the positives of all of them negatives, as in
    the paper, where hard negatives stay with their row. `gather="all"` makes everyone's hard
    negatives negatives of every row as well, in one process too. Gradients are those of one
    process with the whole batch, provided that gradients are averaged over processes, as
    `DistributedDataParallel` and `fully_shard` do.
    """

    def __init__(  # noqa: PLR0913  (each setting by its name)
        self,
        model: nn.Module,
        *,
        groups: Sequence[Budget | str] | None = None,
        weights: Sequence[float] | None = None,
        temperature: float = 0.03,
        score: Score = "sum",
        mini_batch_size: int | None = None,
        gather: Gather = "none",
        false_negative_margin: float | None = None,
        max_block_elements: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        own: Sequence[Budget | str] = getattr(model, "groups", PAPER_GROUPS)
        self.objective = Objective(
            parse_groups(own if groups is None else groups),
            None if weights is None else tuple(weights),
            temperature,
            score,
            false_negative_margin,
            max_block_elements,
        )
        self.mini_batch_size = mini_batch_size
        self.gather: Gather = gather
        self._check()
        self._group_losses: Float[Tensor, " G"] | None = None

    def _check(self) -> None:
        groups, weights, temperature = self.objective[:3]
        if weights is not None and len(weights) != len(groups):
            raise RecipeError(f"{len(groups)} groups need as many weights, not {len(weights)}.")
        if not temperature > 0:
            raise RecipeError(f"Temperature must be positive, not {temperature}.")
        if self.mini_batch_size is not None and self.mini_batch_size < 1:
            raise RecipeError(
                f"A mini batch has at least 1 row, not {self.mini_batch_size}; "
                "leave mini_batch_size out to embed the whole batch at once."
            )
        if self.gather not in GATHERS:
            raise RecipeError(f"gather is one of {', '.join(GATHERS)}, not {self.gather!r}.")
        margin = self.objective.false_negative_margin
        if margin is not None and not margin > 0:
            raise RecipeError(
                "false_negative_margin is a positive share of the positive's score, for example "
                f"0.95, not {margin}."
            )

    @property
    def groups(self) -> tuple[Budget, ...]:
        return self.objective.groups

    @property
    def uses_gradient_cache(self) -> bool:
        """Read by sentence-transformers' losses that wrap another."""
        return self.mini_batch_size is not None

    @property
    def last_group_losses(self) -> Float[Tensor, " G"] | None:
        """What `last_losses` says, where it was computed; None before the first batch."""
        return self._group_losses

    @property
    def last_losses(self) -> dict[str, Float[Tensor, ""]]:
        """The unweighted loss of each group in the last batch, detached.

        They stay on the device, so that a step need not wait for them; `float` of one does.
        """
        if self._group_losses is None:
            return {}
        return dict(zip(map(str, self.groups), self._group_losses.unbind(), strict=True))

    def forward(
        self,
        sentence_features: Iterable[dict[str, Any]],
        labels: Tensor | None = None,  # noqa: ARG002  (the trainer passes it)
    ) -> Float[Tensor, ""]:
        features, marks = parted(sentence_features)

        def of_embeddings(embeddings: Sequence[Tensor]) -> Tensor:
            return self.of_columns(list(map(Column, embeddings, marks)))

        if self.mini_batch_size is None:
            return of_embeddings(self._embedded(features))
        from metaembed.loss.caching import CachedLoss

        cached = CachedLoss(self.model, of_embeddings, mini_batch_size=self.mini_batch_size)
        return cached.forward_cached(features)

    def _embedded(self, features: Sequence[dict[str, Any]]) -> list[Float[Tensor, "B r dim"]]:
        """The candidates of all columns go through the model together where their features fit."""
        from sentence_transformers.base.losses.merged_forward import embed_columns_padded

        query, *candidates = features
        queries = self.model(query)["token_embeddings"]
        return [queries, *embed_columns_padded(self.model, candidates)[0]]

    def of_embeddings(self, columns: Sequence[Float[Tensor, "B r dim"]]) -> Float[Tensor, ""]:
        """The loss of embeddings in the order of the data set's columns."""
        return self.of_columns([Column(vectors) for vectors in columns])

    def of_columns(self, columns: Sequence[Column]) -> Float[Tensor, ""]:
        """The loss of embeddings with their marks, in the order of the data set's columns."""
        everyones, offset = list(columns), 0
        if self.gather != "none" and not is_alone():
            everyones, offset = gathered(columns if self.gather == "all" else columns[:2])
        batch = batch_of(columns, everyones, offset=offset, is_shared=self.gather == "all")
        losses = group_losses(batch, self.objective)
        self._group_losses = losses.detach()
        return weighted(losses, self.objective.weights)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        objective = self.objective._asdict()
        del objective["max_block_elements"]
        return {
            **objective,
            "groups": [str(group) for group in self.groups],
            "mini_batch_size": self.mini_batch_size,
            "gather": self.gather,
        }

    @property
    def citation(self) -> str:
        """The paper, in BibTeX."""
        return CITATION
