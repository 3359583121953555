"""Random normalised embeddings with planted answers: the same on every run, block by block.

Every number is drawn anew from NumPy's normal generator in float32, about 100 million a second on
one core, so that nothing repeats and no cache can help. Each query has one answer: an item whose
first vectors are noisy copies of the query's.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK_NUMBERS = 2**24
"""64 MiB of float32 at a time."""
NOISE = 1.0
"""Norm of what is added to a planted vector: its cosine to the query's is then about 0.7, where
the best of 100,000 random ones has 0.4 at dim 128."""


class Planted(NamedTuple):
    num_items: int
    num_vectors: int
    dim: int
    num_queries: int
    num_query_vectors: int

    def queries(self) -> np.ndarray:
        """(num_queries, num_query_vectors, dim)"""
        shape = (self.num_queries, self.num_query_vectors, self.dim)
        return normal(np.random.default_rng(0), shape)

    def answers(self) -> np.ndarray:
        """The position of each query's item."""
        rng = np.random.default_rng(1)
        return rng.choice(self.num_items, self.num_queries, replace=False)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Consecutive items (n, num_vectors, dim), each block with the position of its first."""
        size = max(1, BLOCK_NUMBERS // (self.num_vectors * self.dim))
        queries, answers = self.queries(), self.answers()
        for start in range(0, self.num_items, size):
            rng = np.random.default_rng([2, start])
            shape = (min(size, self.num_items - start), self.num_vectors, self.dim)
            block = normal(rng, shape)
            here = np.flatnonzero((answers >= start) & (answers < start + shape[0]))
            noise = NOISE * normal(rng, queries[here].shape)
            copies = normalised(queries[here] + noise)[:, : self.num_vectors]
            block[answers[here] - start, : copies.shape[1]] = copies
            yield start, block


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return normalised(rng.standard_normal(shape, dtype=np.float32))


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Scale in place to norm 1."""
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))
    vectors /= norms[..., None]
    return vectors
