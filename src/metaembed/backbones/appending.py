"""Putting meta tokens behind an item's last real token."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from metaembed.backbones.family import Fill
from metaembed.windows import windows as windows_of


def append_tokens(
    features: Mapping[str, Any], token_ids: Sequence[int], per_token: Mapping[str, Fill]
) -> dict[str, Any]:
    """Move every row's real tokens to the left, append `token_ids`, pad on the right with 0.

    Positions of an item and its meta tokens are then the same in every batch. `per_token` names
    further features with one entry a token, of shape (B, T, ...).
    """
    mask: Int[Tensor, "B T"] = features["attention_mask"].bool()
    lengths = mask.sum(dim=1)  # (B,)
    order = torch.argsort(~mask, dim=1, stable=True)  # real tokens first, in their order
    fills: dict[str, Any] = {"attention_mask": 1, "input_ids": torch.tensor(token_ids), **per_token}
    features = dict(features)
    for key, fill in fills.items():
        if key in features:
            features[key] = _extended(features[key], order, lengths, fill, count=len(token_ids))
    return features


def _extended(
    values: Tensor,  # (B, T, ...)
    order: Int[Tensor, "B T"],
    lengths: Int[Tensor, " B"],
    fill: Any,
    *,
    count: int,
) -> Tensor:
    rows = torch.arange(len(values)).unsqueeze(1)
    values = values[rows, order]
    width = int(lengths.max())
    extended = values.new_zeros(len(values), width + count, *values.shape[2:])
    extended[:, :width] = values[:, :width]
    columns = torch.arange(width + count)
    extended[columns >= lengths.unsqueeze(1)] = 0
    slots = lengths.unsqueeze(1) + torch.arange(count)  # (B, count)
    if isinstance(fill, str):
        added = values[rows, lengths.unsqueeze(1) - 1]
    else:
        added = torch.as_tensor(fill, dtype=values.dtype)
    extended[rows, slots] = added
    return extended


def spread_positions(
    lengths: Int[Tensor, " B"], counts: Sequence[int], *, width: int
) -> Int[Tensor, "B T"]:
    """Positions that put every meta token in the middle of the part it looks after."""
    positions = torch.arange(width).repeat(len(lengths), 1)  # (B, T)
    starts, stops = windows_of(lengths, counts)
    slots = lengths.unsqueeze(1) + torch.arange(starts.shape[1])
    positions.scatter_(1, slots, (starts + stops - 1) // 2)
    is_used = torch.arange(width) < lengths.unsqueeze(1) + starts.shape[1]
    return torch.where(is_used, positions, 0)
