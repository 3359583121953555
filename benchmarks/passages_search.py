"""Searches of real embeddings: what storage types lose, what cascades and proofs save.

python benchmarks/passages_search.py [--demo build/demo/index] [--parts losses cascades certified]

Over the passages that `benchmarks/passages.py` has encoded, and over the index of `make demo`.
Queries are those of the held-out known-item set; half of them choose the cascade and the other half
measure it. The part `losses` builds the indexes that the others search. Times are medians of one
query at a time, shuffled between the kinds of search.
"""

import argparse
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance, store
from rich.progress import track

from metaembed.budget import PAPER_GROUPS, Budget
from metaembed.index import Index
from metaembed.index.planning import default_cascade

K = 10
TYPES = ["float32", "bfloat16", "float16", "int8", "int4"]
BUDGETS = [str(group) for group in PAPER_GROUPS]


def passages(folder: Path) -> Iterator[tuple[list[str], np.ndarray, None]]:
    """Batches of what was encoded."""
    for path in sorted(folder.glob("vectors-*.npy")):
        vectors = np.load(path).astype(np.float32)
        yield [f"{path.stem}-{n}" for n in range(len(vectors))], vectors, None


def documents(index: Index) -> Iterator[tuple[list[str], np.ndarray, None]]:
    """Batches of another index's items."""
    ids = index.ids()
    for start in range(0, len(ids), 1024):
        some = ids[start : start + 1024]
        yield some, index.embeddings(some), None


def build(path: Path, batches: Any, dtype: str, sketch: str | None = None) -> Index:
    shutil.rmtree(path, ignore_errors=True)
    index = Index.create(path, dim=128, groups=PAPER_GROUPS, dtype=dtype, sketch=sketch)
    index.extend(batches)
    index.compact()
    return index


def ids_of(index: Index, queries: np.ndarray, **options: Any) -> list[list[str]]:
    """The ids of the best, several queries at a time."""
    found: list[list[str]] = []
    for start in range(0, len(queries), 32):
        hits = index.search(queries[start : start + 32], k=K, **options)
        found += [[hit.id for hit in some] for some in hits]
    return found


def overlap(found: list[list[str]], exact: list[list[str]]) -> dict[str, float]:
    shares = [len({*a} & {*b}) / len(b) for a, b in zip(found, exact, strict=True)]
    return {"mean": float(np.mean(shares)), "p5": float(np.percentile(shares, 5))}


def timed(ways: dict[str, Callable[[np.ndarray], Any]], queries: np.ndarray) -> dict[str, Any]:
    """Milliseconds of one query, the ways in another order for every query."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number, query in enumerate(queries):
        names = list(ways)
        random.Random(number).shuffle(names)
        for name in names:
            start = time.perf_counter()
            ways[name](query[None])
            taken[name].append(1000 * (time.perf_counter() - start))
    return {
        name: dict(zip(["p10", "median", "p90"], np.percentile(t, [10, 50, 90]), strict=True))
        for name, t in taken.items()
    }


def losses(folder: Path, batches: Callable[[], Any], queries: np.ndarray) -> list[dict[str, Any]]:
    """The share of float32's top ten that each storage type finds, by budget."""
    exact: dict[str, list[list[str]]] = {}
    rows = []
    for dtype in track(TYPES, description="storage types"):
        with build(folder / dtype, batches(), dtype) as index:
            for budget in BUDGETS:
                found = ids_of(index, queries, budget=budget)
                exact.setdefault(budget, found)
                rows.append(
                    {
                        "dtype": dtype,
                        "budget": budget,
                        "bytes": index.bytes_per_item(budget),
                        "overlap": overlap(found, exact[budget]),
                    }
                )
        if dtype not in ("float32", "bfloat16", "int8"):
            shutil.rmtree(folder / dtype)
    return rows


def cascades(path: Path, queries: np.ndarray) -> dict[str, Any]:
    """Recall and time of the rule's cascade and of the one that the other queries choose."""
    sample, asked = queries[::2][:100], queries[1::2][:200]
    with Index.open(path) as index:
        start = time.perf_counter()
        choice = index.choose_cascade(sample, recall=0.99)
        chosen_in = time.perf_counter() - start
        widths = [group.candidate for group in PAPER_GROUPS]
        rule = default_cascade(Budget(16, 64), K, len(index), widths)
        exact = [one for query in asked for one in ids_of(index, query[None])]
        named = {"rule": rule, "chosen": choice.cascade}
        ways: dict[str, Callable[[np.ndarray], Any]] = {"exact": lambda q: index.search(q, k=K)}
        for name, cascade in named.items():
            if cascade is not None:
                ways[name] = lambda q, c=cascade: index.search(q, k=K, cascade=c)  # type: ignore[misc]
        times = timed(ways, asked)
        rows = {
            name: {
                "cascade": str(named.get(name) or "exact"),
                "ms": times[name],
                "recall": overlap([[h.id for h in way(q[None])[0]] for q in asked], exact),
                "speedup": times["exact"]["median"] / times[name]["median"],
            }
            for name, way in ways.items()
        }
        return {"items": len(index), "dtype": index.dtype, "choosing_s": chosen_in, "ways": rows}


def certified(path: Path, sketched: Path, queries: np.ndarray) -> dict[str, Any]:
    """What a proof through an int8 sketch saves of an exact search."""
    asked = queries[1::2][:100]
    with Index.open(path) as source, source.copy(sketched, sketch="int8") as index:
        ways = {
            "exact": lambda q: index.search(q, k=K),
            "certified": lambda q: index.search_certified(q, k=K),
        }
        times = timed(ways, asked)
        found = [index.search_certified(query[None], k=K)[0] for query in asked]
        equal = sum(
            hits == index.search(q[None], k=K)[0] for (hits, _), q in zip(found, asked, strict=True)
        )
        scored = [proof.scored / proof.items for _, proof in found]
        result = {
            "items": len(index),
            "dtype": index.dtype,
            "queries": len(asked),
            "equal_to_exact": equal,
            "share_scored_in_full": {
                "median": float(np.median(scored)),
                "p95": float(np.percentile(scored, 95)),
            },
            "ms": times,
            "speedup": times["exact"]["median"] / times["certified"]["median"],
        }
    shutil.rmtree(sketched)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=Path, default=Path("build/bench/passages"))
    parser.add_argument("--demo", type=Path, default=Path("build/demo/index"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/passages.json"))
    parser.add_argument("--parts", nargs="*", default=["losses", "cascades", "certified"])
    arguments = parser.parse_args()
    folder = arguments.passages.parent / "indexes"
    queries = np.load(arguments.passages / "queries.npy").astype(np.float32)
    queries = queries[np.random.default_rng(0).permutation(len(queries))[:400]]
    demo = Index.open(arguments.demo)
    corpora = {
        "passages": lambda: passages(arguments.passages),
        "demo": lambda: documents(demo),
    }
    for name, batches in corpora.items():
        here = folder / name
        parts: dict[str, Callable[[], Any]] = {
            "losses": lambda here=here, batches=batches: losses(here, batches, queries),  # type: ignore[misc]
            "cascades": lambda here=here: [  # type: ignore[misc]
                cascades(here / dtype, queries) for dtype in ("int8", "bfloat16")
            ],
            "certified": lambda here=here: [  # type: ignore[misc]
                certified(here / dtype, here / "sketched", queries)
                for dtype in ("bfloat16", "float32")
            ],
        }
        for part in arguments.parts:
            result = {"provenance": provenance(synthetic=False), "rows": parts[part]()}
            store(arguments.out, f"{name}-{part}", result)


if __name__ == "__main__":
    main()
