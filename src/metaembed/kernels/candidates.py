"""Candidates made ready for scoring at one `r_c`, and the choice of the kernel that does it."""

import logging
import os
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Int

from metaembed.errors import MetaEmbedError
from metaembed.kernels import native, plain
from metaembed.kernels.parts import Best, Part, num_items, select

logger = logging.getLogger(__name__)


class Candidates:
    """The first `r_c` vectors of the items of some parts. Threads may share an instance.

    What comes out equals `maxsim(round_queries(queries, dtype), decoded vectors)` up to rounding,
    and items that are stored alike get the same score wherever they lie.
    """

    def __init__(self, parts: Sequence[Part], *, r_c: int):
        self.r_c = r_c
        self._parts = parts
        self._num_items = num_items(parts)
        self._native = native.NativeParts(parts, r_c=r_c) if kernel_name() != "torch" else None

    def __len__(self) -> int:
        return self._num_items

    def at(self, positions: Int[np.ndarray, " n"]) -> "Candidates":
        """The items at these ascending positions."""
        few = object.__new__(Candidates)
        few.r_c, few._num_items = self.r_c, len(positions)
        few._native = None if self._native is None else self._native.at(positions)
        few._parts = self._parts if self._native else select(self._parts, positions)
        return few

    def top_k(self, queries: Float[np.ndarray, "Q r_q dim"], k: int) -> Best:
        """The best `k` items of each query, or all of them when there are fewer."""
        return self._search(queries, max(1, k))

    def scores(self, queries: Float[np.ndarray, "Q r_q dim"]) -> Float[np.ndarray, "Q n"]:
        """The scores of all items, in order."""
        return self._search(queries, 0).scores

    def _search(self, queries: Float[np.ndarray, "Q r_q dim"], k: int) -> Best:
        if self._native is None:
            return plain.search(queries, self._parts, r_c=self.r_c, k=k)
        return native.search(queries, self._native, k=k, instruction_set=kernel_name())


@cache
def kernel_name() -> str:
    """The instruction set that searches use, or "torch".

    `METAEMBED_KERNEL` may name another that this processor has.
    """
    library = native.library()
    available = [*(library.instruction_sets if library else ()), "torch"]
    asked = os.environ.get("METAEMBED_KERNEL")
    if asked is not None and asked not in available:
        raise MetaEmbedError(
            f"METAEMBED_KERNEL is {asked!r}; here it can be one of {', '.join(available)}."
        )
    if library is None and asked is None:
        logger.warning(
            "Searching with torch: metaembed was installed without its native kernel, which is "
            "several times faster. Install a C++ compiler, then metaembed again."
        )
    return asked or available[0]
