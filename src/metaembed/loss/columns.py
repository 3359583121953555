"""The columns of a batch: their vectors, and the marks that say what may be a negative of what."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaembed.loss.objective import Batch


class Marks(NamedTuple):
    """What a column's features may carry beside the model's input."""

    key: Int[Tensor, " B"] | None = None
    """A hash of text and image together; equal keys are the same item."""
    present: Bool[Tensor, " B"] | None = None
    """False where a hard negative is a placeholder, since its row has none."""


class Column(NamedTuple):
    vectors: Float[Tensor, "B r dim"]
    marks: Marks = Marks()


def parted(
    sentence_features: Iterable[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[Marks]]:
    """Part every column's features into the model's input and its marks."""
    features = [dict(column) for column in sentence_features]
    marks = [Marks(*(column.pop(name, None) for name in Marks._fields)) for column in features]
    return features, marks


def batch_of(
    own: Sequence[Column], everyones: Sequence[Column], *, offset: int, is_shared: bool
) -> Batch:
    """Compare one's own queries with the positives of all processes and with hard negatives.

    Columns stand in the order of the data set: query, positive, hard negatives. Row u of `own` is
    row `offset + u` of `everyones`. Rows with the same query or the same positive are not each
    other's negatives. A hard negative is one of its own row, or with `is_shared` of all rows,
    unless it is absent or is the row's positive.
    """
    others = [
        mine.marks.key[:, None] != theirs.marks.key
        for mine, theirs in zip(own[:2], everyones[:2], strict=True)
        if mine.marks.key is not None and theirs.marks.key is not None
    ]  # (B, C)
    queries, positives = own[0].vectors, everyones[1].vectors
    allowed = torch.stack(others).all(dim=0) if others else None
    if is_shared and len(everyones) > 2:
        if allowed is None:
            allowed = queries.new_ones((len(queries), len(positives)), dtype=torch.bool)
        hard = [_shared(column.marks, own[1].marks.key, like=allowed) for column in everyones[2:]]
        positives = torch.cat([positives, *(column.vectors for column in everyones[2:])])
        return Batch(queries, positives, None, offset, torch.cat([allowed, *hard], dim=1))
    if len(own) == 2:
        return Batch(queries, positives, None, offset, allowed)
    negatives = torch.stack([column.vectors for column in own[2:]], dim=1)  # (B, N, R_c, dim)
    is_negative = [_own(column, own[1].marks.key) for column in own[2:]]
    return Batch(queries, positives, negatives, offset, allowed, torch.stack(is_negative, dim=1))


def _own(negative: Column, positive_key: Int[Tensor, " B"] | None) -> Bool[Tensor, " B"]:
    """The rows that have this hard negative."""
    vectors, (key, present) = negative
    mask = vectors.new_ones(len(vectors), dtype=torch.bool) if present is None else present.bool()
    if key is None or positive_key is None:
        return mask
    return mask & (key != positive_key)


def _shared(
    marks: Marks, positive_key: Int[Tensor, " B"] | None, *, like: Bool[Tensor, "B C"]
) -> Bool[Tensor, "B C"]:
    """Which hard negatives of all processes count for which rows."""
    mask = torch.ones_like(like)
    if marks.present is not None:
        mask = mask & marks.present.bool()
    if marks.key is not None and positive_key is not None:
        mask = mask & (marks.key != positive_key[:, None])
    return mask
