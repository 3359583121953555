"""Which part of an item each meta token looks after.

The vectors that a group adds to the group before it divide the item evenly among them: with the
candidate sizes 1, 4, 8 the first vector has the whole item, the next three a third each, the next
four a quarter each. So every prefix covers the whole item, a longer one more finely.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def added(sizes: Sequence[int]) -> list[int]:
    """How many vectors each group adds.

    >>> added([1, 4, 8, 16, 64])
    [1, 3, 4, 8, 48]
    """
    return [
        size - before for before, size in zip([0, *sizes], sizes, strict=False) if size > before
    ]


def windows(
    lengths: Int[Tensor, " B"], counts: Sequence[int]
) -> tuple[Int[Tensor, "B R"], Int[Tensor, "B R"]]:
    """First token and end of every window, for items of `lengths` tokens.

    The whole item has its first and last token too; its parts leave them out, since tokenizers
    put special tokens there. A window is at least one token long, so in an item shorter than its
    windows they share tokens.

    >>> starts, stops = windows(torch.tensor([8]), [1, 3])
    >>> starts.tolist(), stops.tolist()
    ([[0, 1, 3, 5]], [[8, 3, 5, 7]])
    """
    starts, stops = [], []
    lengths = lengths.unsqueeze(1)  # (B, 1)
    for count in counts:
        edge = 0 if count == 1 else 1
        inner = (lengths - 2 * edge).clamp(min=1)
        number = torch.arange(count, device=lengths.device)
        start = edge + (number * inner) // count  # (B, count)
        stop = torch.maximum(edge + ((number + 1) * inner) // count, start + 1)
        starts.append(torch.minimum(start, lengths - 1))
        stops.append(torch.minimum(stop, lengths))
    return torch.cat(starts, dim=1), torch.cat(stops, dim=1)
