"""One million items of 64 vectors, dim 128, int8: build rate, bytes, and time by budget.

python benchmarks/million.py [--items 1000000] [--folder build/bench/million]

The data are random and say nothing about recall: an item is a direction with noise, and a query a
noisy copy of one item's vectors, so that the right answer is known.
"""

import argparse
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance, store
from rich.progress import track
from rounds import spread

from metaembed.budget import PAPER_GROUPS, Budget
from metaembed.index import Index
from metaembed.index.planning import default_cascade

BATCH = 4_000
DIM, NUM_VECTORS = 128, 64


def batches(num_items: int, num_queries: int, out: list[np.ndarray]) -> Iterator[Any]:
    """Batches of items; the vectors of the first ones are noted in `out` to make queries of."""
    rng = np.random.default_rng(0)
    for start in track(range(0, num_items, BATCH), description="building"):
        vectors = rng.standard_normal((BATCH, NUM_VECTORS, DIM), dtype=np.float32)
        vectors += 2 * rng.standard_normal((BATCH, 1, DIM), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        if len(out) < num_queries:
            out.append(vectors[0, :16] + 0.05 * rng.standard_normal((16, DIM), dtype=np.float32))
        ids = [f"item-{n}" for n in range(start, start + BATCH)]
        yield ids, vectors, [{"page": n % 1000} for n in range(start, start + BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("build/bench/million"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/million.json"))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    result: dict[str, Any] = {"provenance": provenance(synthetic=True), "items": arguments.items}
    queries: list[np.ndarray] = []
    index = Index.create(arguments.folder, dim=DIM, groups=PAPER_GROUPS, dtype="int8")
    start = time.perf_counter()
    index.extend(batches(arguments.items, arguments.rounds, queries))
    result["build_s"] = time.perf_counter() - start
    result["stats"] = index.stats()._asdict()
    result["peak_memory_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    index.close()
    start = time.perf_counter()
    with Index.open(arguments.folder) as index:
        index.search(queries[0][None], "1x1")
        result["first_search_s"] = time.perf_counter() - start
        rule = default_cascade(Budget(16, 64), 10, len(index), [1, 4, 8, 16, 64])
        ways: dict[str, dict[str, Any]] = {str(group): {"budget": group} for group in PAPER_GROUPS}
        ways["cascade"] = {"cascade": str(rule)}
        ways["1x1, 0.1 % pass"] = {"budget": "1x1", "filter": {"page": 7}}
        ways["4x8, 99 % pass"] = {"budget": "4x8", "filter": {"page": {"gte": 10}}}
        result["searches"] = {}
        for name, options in track(ways.items(), description="searching"):
            index.search(queries[0][None], **options)
            taken, right = [], 0
            for number, query in enumerate(queries):
                start = time.perf_counter()
                (hits,) = index.search(query[None], **options)
                taken.append(1000 * (time.perf_counter() - start))
                right += bool(hits) and hits[0].id == f"item-{number * BATCH}"
            row = {"ms": spread(taken), "right_first": right, "queries": len(queries)}
            result["searches"][name] = {**row, "options": {k: str(v) for k, v in options.items()}}
    store(arguments.out, f"{arguments.items}-int8", result)
    shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
