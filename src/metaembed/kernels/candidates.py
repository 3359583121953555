"""Candidates made ready for scoring at one `r_c`, and the choice of the kernel that does it."""

import importlib.util
import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import Protocol

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
        self._num_items = num_items(parts)
        self._kernel = _kernel(parts, r_c)

    def __len__(self) -> int:
        return self._num_items

    def at(self, positions: Int[np.ndarray, " n"]) -> "Candidates":
        """The items at these ascending positions."""
        few = object.__new__(Candidates)
        few._num_items = len(positions)
        few._kernel = self._kernel.at(positions)
        return few

    def top_k(self, queries: Float[np.ndarray, "Q r_q dim"], k: int) -> Best:
        """The best `k` items of each query, or all of them when there are fewer."""
        return self._kernel.search(queries, max(1, k))

    def scores(self, queries: Float[np.ndarray, "Q r_q dim"]) -> Float[np.ndarray, "Q n"]:
        """The scores of all items, in order."""
        return self._kernel.search(queries, 0).scores


class _Kernel(Protocol):
    """`search` gives the best `k` items; all scores, and no positions, when `k` is 0."""

    def at(self, positions: Int[np.ndarray, " n"]) -> "_Kernel": ...

    def search(self, queries: Float[np.ndarray, "Q r_q dim"], k: int) -> Best: ...


class _Native:
    def __init__(self, parts: native.NativeParts):
        self._parts = parts

    def at(self, positions: Int[np.ndarray, " n"]) -> "_Native":
        return _Native(self._parts.at(positions))

    def search(self, queries: Float[np.ndarray, "Q r_q dim"], k: int) -> Best:
        return native.search(queries, self._parts, k=k, instruction_set=kernel_name())


class _Plain:
    def __init__(self, parts: Sequence[Part], r_c: int):
        self._parts, self._r_c = parts, r_c

    def at(self, positions: Int[np.ndarray, " n"]) -> "_Plain":
        return type(self)(select(self._parts, positions), self._r_c)

    def search(self, queries: Float[np.ndarray, "Q r_q dim"], k: int) -> Best:
        return plain.search(queries, self._parts, r_c=self._r_c, k=k)


class _Gpu(_Plain):
    """Streams what it scores into the GPU's memory."""

    def search(self, queries: Float[np.ndarray, "Q r_q dim"], k: int) -> Best:
        from metaembed.kernels import gpu

        if k:
            return gpu.top_k(queries, self._parts, r_c=self._r_c, k=k)
        scores = gpu.scores(queries, self._parts, r_c=self._r_c)
        return Best(scores, np.empty((len(queries), 0), np.int64))


def _kernel(parts: Sequence[Part], r_c: int) -> _Kernel:
    match kernel_name():
        case "torch":
            return _Plain(parts, r_c)
        case "gpu":
            return _Gpu(parts, r_c)
    return _Native(native.NativeParts(parts, r_c=r_c))


@cache
def kernel_name() -> str:
    """The instruction set that searches use, "gpu" or "torch".

    The fastest that this processor has, unless `METAEMBED_KERNEL` names another.
    """
    library = native.library()
    available = [*(library.instruction_sets if library else ()), "torch"]
    asked = os.environ.get("METAEMBED_KERNEL")
    if asked == "gpu" and _has_gpu():
        return asked
    if asked is not None and asked not in available:
        raise MetaEmbedError(
            f"METAEMBED_KERNEL is {asked!r}; here it can be one of {', '.join(available)}"
            f"{', gpu' * _has_gpu()}."
        )
    if library is None and asked is None:
        logger.warning(
            "Searching with torch: metaembed was installed without its native kernel, which is "
            "several times faster. Install a C++ compiler, then metaembed again."
        )
    return asked or available[0]


def _has_gpu() -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    from metaembed.kernels import gpu

    return gpu.available()
