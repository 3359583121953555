"""From examples to what the loss takes: every side tokenized, with its key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.multi_vector_encoder.data_collator import MultiVectorEncoderDataCollator

from metaembed.data.examples import Example, Side
from metaembed.errors import ItemError
from metaembed.items import Item

PLACEHOLDER = "."
"""Read in place of a hard negative that a row does not have; the loss leaves it out."""


@dataclass
class ExampleCollator(MultiVectorEncoderDataCollator):
    """Batches rows `{"example": Example, "origin": str}` into columns of features.

    Columns: query, positive, then `num_negatives` of hard negatives. Beside the model's inputs each
    has `key` (B,), by which the loss tells that two rows mean the same thing, and negatives have
    `present` (B,), False where a row has fewer.
    """

    num_negatives: int = 0
    by_path: bool = False
    """Pictures count as equal by their paths, which saves reading them for their keys."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        examples: list[Example] = [row["example"] for row in features]
        origins: list[str] = [row["origin"] for row in features]
        columns: dict[str, list[Side | None]] = {
            "query": [example.query for example in examples],
            "positive": [example.positive for example in examples],
        }
        for number in range(self.num_negatives):
            columns[f"negative_{number}"] = [
                example.negatives[number] if number < len(example.negatives) else None
                for example in examples
            ]
        batch: dict[str, Any] = {}
        for position, (name, sides) in enumerate(columns.items()):
            task = self._get_task_for_column(name, position, {})
            extra = {} if self.max_length is None else {"max_length": self.max_length}
            items = _items(sides, origins, name)
            for key, value in self.preprocess_fn(items, task=task, **extra).items():
                batch[f"{name}_{key}"] = value
            keys = [0 if side is None else side.key(by_path=self.by_path) for side in sides]
            batch[f"{name}_key"] = torch.tensor(keys)
            if position > 1:
                batch[f"{name}_present"] = torch.tensor([side is not None for side in sides])
            batch[f"{name}_task"] = task
        return batch


def _items(sides: Sequence[Side | None], origins: Sequence[str], name: str) -> list[Item]:
    items = []
    for side, origin in zip(sides, origins, strict=True):
        try:
            items.append(Item(text=PLACEHOLDER) if side is None else side.item())
        except ItemError as error:
            raise ItemError(
                f"{origin}: its {name.replace('_', ' ')} cannot be read. {error} "
                "`metaembed data check` lists all such rows."
            ) from None
    return items
