"""Validation by budget while training: held-out queries against held-out candidates."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sentence_transformers.base.evaluation import BaseEvaluator

from metaembed.data.examples import Example, Examples, Side
from metaembed.errors import RecipeError
from metaembed.evaluation.metrics import hit_from_ranks, ndcg_from_ranks, ranks_of_gold
from metaembed.model import MetaEmbed
from metaembed.scoring import maxsim
from metaembed.training.diagnostics import diagnose

logger = logging.getLogger(__name__)

NDCG_AT = 5


class First:
    """The first rows of a source: those that are not held out."""

    def __init__(self, source: Examples, count: int) -> None:
        self.name = source.name
        self._source, self._count = source, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._source[index]

    def where(self, index: int) -> str:
        return self._source.where(index)


def hold_out(source: Examples, count: int) -> tuple[Examples, list[Example]]:
    """Split off the last `count` rows of a source."""
    if not count:
        return source, []
    kept = len(source) - count
    if kept < 1:
        raise RecipeError(
            f"Source {source.name!r} has {len(source)} rows, of which {count} cannot be held out."
        )
    return First(source, kept), [source[index] for index in range(kept, len(source))]


class BudgetValidation(BaseEvaluator):
    """Retrieve every held-out query's positive at every training budget.

    Candidates are the positives and hard negatives of all held-out rows. What a query also counts
    as an answer (an equal positive, or the positive of an equal query) is taken out of its
    candidates. Ties count against the model.
    """

    def __init__(self, examples: Sequence[Example], *, batch_size: int = 32) -> None:
        super().__init__()
        self.greater_is_better = True
        self._queries = [example.query for example in examples]
        sides: dict[int, Side] = {}
        for example in examples:
            for side in (example.positive, *example.negatives):
                sides.setdefault(side.key(), side)
        places = {key: place for place, key in enumerate(sides)}
        self._candidates = list(sides.values())
        self._gold = np.array([places[example.positive.key()] for example in examples])
        self._ignored = _other_answers(examples, places)
        self._batch_size = batch_size

    def __call__(
        self,
        model: MetaEmbed,
        output_path: str | None = None,  # noqa: ARG002  (the trainer passes it)
        epoch: float = -1,  # noqa: ARG002
        steps: int = -1,
    ) -> dict[str, float]:
        queries = self._encode(model, self._queries, is_query=True)
        candidates = self._encode(model, self._candidates, is_query=False)
        metrics: dict[str, float] = {}
        for group in model.groups:
            scores = maxsim(queries[:, : group.query], candidates[:, : group.candidate]).numpy()
            ranks = self._ranks(scores)
            metrics[f"{group}_hit@1"] = float(hit_from_ranks(ranks, k=1).mean())
            metrics[f"{group}_ndcg@{NDCG_AT}"] = float(ndcg_from_ranks(ranks, k=NDCG_AT).mean())
        self.primary_metric = f"{model.limit}_ndcg@{NDCG_AT}"
        found = diagnose(queries, candidates[torch.from_numpy(self._gold)], model.groups)
        metrics["query_cosine"] = found.query_cosine_mean
        metrics["candidate_cosine"] = found.candidate_cosine_mean
        metrics |= {f"{group}_wins": share for group, share in found.wins_by_group.items()}
        for warning in found.warnings:
            logger.warning("Step %s: %s", steps, warning)
        return metrics

    def _ranks(self, scores: Float[np.ndarray, "Q C"]) -> Int[np.ndarray, " Q"]:
        scores = np.where(self._ignored, -np.inf, scores)
        return ranks_of_gold(scores, self._gold)

    def _encode(self, model: MetaEmbed, sides: Sequence[Side], *, is_query: bool) -> torch.Tensor:
        vectors: list[torch.Tensor] = []
        encode = model.encode_query if is_query else model.encode_document
        for start in range(0, len(sides), self._batch_size):
            items = [side.item() for side in sides[start : start + self._batch_size]]
            found: Any = encode(items, convert_to_tensor=True, show_progress_bar=False)
            vectors.append(found.float().cpu())
        return torch.cat(vectors)


def _other_answers(examples: Sequence[Example], places: dict[int, int]) -> Bool[np.ndarray, "Q C"]:
    """Candidates that answer a query as well as its own positive does."""
    answers: dict[int, set[int]] = {}
    for example in examples:
        answers.setdefault(example.query.key(), set()).add(places[example.positive.key()])
    ignored = np.zeros((len(examples), len(places)), dtype=bool)
    for row, example in enumerate(examples):
        ignored[row, list(answers[example.query.key()])] = True
        ignored[row, places[example.positive.key()]] = False
    return ignored
