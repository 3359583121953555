"""Small indexes whose scores are exact, and the search that they are compared with."""

import sqlite3
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

import metaembed.index
from metaembed.budget import Budget
from metaembed.index import Index
from tests import oracles

GROUPS = ["1x1", "2x4"]

FORMAT_2 = Path(__file__).parent / "data" / "format-2"
"""int8 with a sketch in int4: 4 items, one deleted and compacted away, one replaced after that."""

FORMAT_1 = Path(__file__).parent / "data" / "format-1"
"""Written by the first release that had an index: 4 items, then one replaced and one deleted."""


def grid(items, vectors, dim, seed=0):
    """Vectors of quarters between -1 and 1: float16 holds them, sums are exact, and scores tie."""
    return np.random.default_rng(seed).integers(-4, 5, (items, vectors, dim)) / np.float32(4)


def unit(items, vectors, dim, seed=0):
    """Vectors of length 1, as a model gives them."""
    random = np.random.default_rng(seed).standard_normal((items, vectors, dim)).astype(np.float32)
    return random / np.linalg.norm(random, axis=-1, keepdims=True)


def saved(path, segment):
    """The arrays of a segment by file name."""
    folder = path / "segments" / str(segment)
    return {file.name: np.load(file, allow_pickle=False) for file in sorted(folder.iterdir())}


def make_index(path, items=6, dim=4, groups=GROUPS, seed=0, **options):
    """Items `0`, `1`, … with metadata `{"n": number}`."""
    index = Index.create(path, dim=dim, groups=groups, **{"dtype": "float16", **options})
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


def sql(path, *statements):
    """Change the catalog behind the index's back."""
    connection = sqlite3.connect(path / "catalog.sqlite")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def query(path, statement):
    """What the catalog holds."""
    with closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        return connection.execute(statement).fetchall()


def command(code, *arguments):
    """Arguments that make `subprocess` run Python code with this package."""
    source = Path(metaembed.index.__file__).parents[2]
    return {
        "args": [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        "env": {"PYTHONPATH": str(source)},
        "text": True,
    }
