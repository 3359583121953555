"""Candidates of one case in memory, as the index lays them out and as its peers take them."""

import itertools
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
from synthetic import Planted

from metaembed.budget import PAPER_GROUPS, Budget
from metaembed.storage import (
    CODES,
    SCALE,
    StorageType,
    Stored,
    code_length,
    encode,
    has_scales,
    num_bytes,
)


class Corpus(NamedTuple):
    budget: Budget
    queries: np.ndarray
    """(Q, r_q, dim)"""
    answers: np.ndarray
    """(Q,) the position of the item that was planted for each query."""
    scores: np.ndarray
    """(Q, N) in float32, by which every other result is judged."""
    planes: dict[StorageType, tuple[Stored, ...]]
    """Consecutive vectors, with the edges of an index of the paper's groups."""
    whole: dict[StorageType, Stored]
    """The first r_c vectors of every item together, for the peers."""

    @property
    def num_items(self) -> int:
        return int(self.scores.shape[1])

    @property
    def dim(self) -> int:
        return int(self.queries.shape[2])

    def num_bytes(self, dtype: StorageType, num_items: int) -> int:
        """Of the vectors that a search of so many items has to read."""
        return num_items * self.budget.candidate * num_bytes(dtype, self.dim)


def plane_widths(num_vectors: int) -> list[int]:
    """Widths of the planes that hold at least so many vectors, as the paper's groups cut them."""
    edges = sorted({group.candidate for group in PAPER_GROUPS})
    below = [edge for edge in edges if edge < num_vectors]
    beyond = next((edge for edge in edges if edge >= num_vectors), num_vectors)
    return [stop - start for start, stop in itertools.pairwise([0, *below, beyond])]


def planted(num_items: int, dim: int, budget: Budget, *, num_queries: int) -> Planted:
    num_vectors = sum(plane_widths(budget.candidate))
    return Planted(num_items, num_vectors, dim, num_queries, budget.query)


def build(
    source: Planted,
    budget: Budget,
    *,
    types: Collection[StorageType],
    whole: Collection[StorageType],
) -> Corpus:
    """Fill the arrays in one pass over the blocks; float32 exists as a whole only if asked for."""
    widths = plane_widths(budget.candidate)
    size, dim = source.num_items, source.dim
    planes = {dtype: tuple(empty(dtype, (size, w), dim) for w in widths) for dtype in types}
    joined = {dtype: empty(dtype, (size, budget.candidate), dim) for dtype in whole}
    queries = source.queries()
    scores = np.empty((len(queries), size), np.float32)
    for start, block in source.blocks():
        rows = slice(start, start + len(block))
        scores[:, rows] = exact_scores(queries, block[:, : budget.candidate])
        for dtype in {*types, *whole}:
            stored = encode(block, dtype)
            for target, part in targets(planes.get(dtype, ()), joined.get(dtype)):
                put(target, rows, stored, part)
    return Corpus(budget, queries, source.answers(), scores, planes, joined)


def targets(
    planes: tuple[Stored, ...], whole: Stored | None
) -> Iterator[tuple[Stored, tuple[int, int]]]:
    """Each array to fill, with the first and last of the vectors that it takes."""
    start = 0
    for plane in planes:
        stop = start + plane.codes.shape[1]
        yield plane, (start, stop)
        start = stop
    if whole is not None:
        yield whole, (0, whole.codes.shape[1])


def empty(dtype: StorageType, shape: tuple[int, int], dim: int) -> Stored:
    codes = np.empty((*shape, code_length(dtype, dim)), CODES[dtype])
    return Stored(dtype, dim, codes, np.empty(shape, SCALE) if has_scales(dtype) else None)


def put(target: Stored, rows: slice, stored: Stored, part: tuple[int, int]) -> None:
    start, stop = part
    target.codes[rows] = stored.codes[:, start:stop]
    if target.scales is not None and stored.scales is not None:
        target.scales[rows] = stored.scales[:, start:stop]


def exact_scores(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Score every query against every candidate in float32, by the project's definition."""
    import torch

    from metaembed.scoring import maxsim

    return maxsim(torch.from_numpy(queries), torch.from_numpy(candidates)).numpy()
