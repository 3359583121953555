"""What every kernel takes and gives: candidates as they are stored, and the best of them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metaembed.errors import IndexMismatchError
from metaembed.storage import Stored


class Part(NamedTuple):
    """A run of items whose vectors lie together."""

    planes: tuple[Stored, ...]
    """Consecutive vectors of every row, of one kind of query: float32 and float16 may be mixed, and
    int8, int4 and binary; bfloat16 stands alone."""
    rows: Int[np.ndarray, " n"] | None
    """The rows to score, in this order; None: all of them."""


class Best(NamedTuple):
    """The highest scores of every query, best first; equal scores in the order of the positions."""

    scores: Float[np.ndarray, "Q k"]
    positions: Int[np.ndarray, "Q k"]
    """Counted through the selected rows of the parts, in order."""


def num_items(parts: Iterable[Part]) -> int:
    return sum(len(part.planes[0].codes) if part.rows is None else len(part.rows) for part in parts)


def select(parts: Sequence[Part], positions: Int[np.ndarray, " n"]) -> list[Part]:
    """The items at these ascending positions."""
    chosen, first = [], 0
    for part in parts:
        size = num_items([part])
        low, high = np.searchsorted(positions, (first, first + size)).tolist()
        rows = positions[low:high] - first
        chosen.append(part._replace(rows=rows if part.rows is None else part.rows[rows]))
        first += size
    return chosen


def overflow() -> IndexMismatchError:
    """Scores are infinite or not numbers; finite vectors of a sensible length never do that."""
    return IndexMismatchError(
        "The scores overflow float32. Normalise the vectors; if they are normalised, the index is "
        "damaged, and `metaembed index verify` says where."
    )
