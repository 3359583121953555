"""Small indexes whose scores are exact, and the search that they are compared with."""

import numpy as np
import torch

from metaembed.budget import Budget
from metaembed.index import Index
from tests import oracles

GROUPS = ["1x1", "2x4"]


def grid(items, vectors, dim, seed=0):
    """Vectors of quarters between -1 and 1: float16 holds them, sums are exact, and scores tie."""
    return np.random.default_rng(seed).integers(-4, 5, (items, vectors, dim)) / np.float32(4)


def make_index(path, items=6, dim=4, groups=GROUPS, seed=0, **options):
    """Items `0`, `1`, … with metadata `{"n": number}`."""
    index = Index.create(path, dim=dim, groups=groups, **options)
    vectors = grid(items, index.num_vectors, dim, seed)
    index.add([str(n) for n in range(items)], vectors, [{"n": n} for n in range(items)])
    return index


def pairs(hits):
    return [[(hit.id, hit.score) for hit in some] for some in hits]


def naive_search(items, queries, budget, k=10):
    """Score `items` {id: vectors} by three loops; equal scores keep the order of `items`."""
    budget = Budget.parse(budget)
    if not items:
        return [[] for _ in queries]
    candidates = torch.from_numpy(np.stack(list(items.values())))[:, : budget.candidate]
    scores = oracles.maxsim(torch.from_numpy(queries)[:, : budget.query], candidates)
    return [sorted(zip(items, row, strict=True), key=lambda hit: -hit[1])[:k] for row in scores]
