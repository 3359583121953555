"""What a method's times and results are worth: against float32, the machine and the kernel."""

import time
from typing import Any, Literal, NamedTuple

import numpy as np
from corpus import Corpus
from machine import Sample, Work
from ours import filtered_rows
from rounds import ratios, spread

from metaembed.kernels import Best
from metaembed.storage import StorageType

K = 10
CHECK_AGAIN_SECONDS = 2.0
"""A faster call is repeated before its duration is believed, since the first one is slow."""


class Method(NamedTuple):
    kind: Literal["kernel", "mapped kernel", "index", "peer"]
    dtype: StorageType
    filter: str | None
    searcher: Any
    """Has `search` and `read`."""


def name_of(kind: str, dtype: StorageType, filter: str | None) -> str:
    return f"{kind} {dtype}" + (f", {filter} pass" if filter else "")


def checked(
    corpus: Corpus, method: Method, batches: list[np.ndarray]
) -> tuple[dict[str, Any], float]:
    """Search once with every query; what it is worth against float32, and how long a call takes."""
    found, taken = [], 0.0
    for some in [*batches, batches[0]]:
        start = time.perf_counter()
        hits = method.searcher.search(some, K)
        taken = time.perf_counter() - start
        found.append(method.searcher.read(hits))
        if taken > CHECK_AGAIN_SECONDS and len(found) == len(batches):
            break
    best = Best(*(np.concatenate(part) for part in zip(*found[: len(batches)], strict=True)))
    return quality(corpus, best, filtered_rows(method.filter, corpus.num_items)), taken


def quality(corpus: Corpus, best: Best, rows: np.ndarray | None) -> dict[str, float]:
    """Compare with the scores in float32, of the items that pass the filter."""
    num_queries = len(best.positions)
    scores = corpus.scores[:num_queries]
    among = scores if rows is None else scores[:, rows]
    order = np.argsort(-among, axis=1, kind="stable")[:, :K]
    expected = order if rows is None else rows[order]
    shared = [
        len(set(mine) & set(right)) / len(right)
        for mine, right in zip(best.positions.tolist(), expected.tolist(), strict=True)
    ]
    error = np.abs(best.scores - np.take_along_axis(scores, best.positions, 1)).max()
    result = {
        "overlap": float(np.mean(shared)),
        "score_error": float(error) / corpus.budget.query,
    }
    if rows is None:
        first = best.positions[:, 0] == corpus.answers[:num_queries]
        result["hit_at_1"] = float(np.mean(first))
    return result


def work_of(corpus: Corpus, method: Method, *, batch: int) -> Work:
    rows = filtered_rows(method.filter, corpus.num_items)
    num_items = corpus.num_items if rows is None else len(rows)
    r_q, r_c = corpus.budget
    return Work(
        method.dtype,
        num_bytes=corpus.num_bytes(method.dtype, num_items),
        num_operations=2 * r_q * r_c * corpus.dim * num_items * batch,
    )


def against_limit(work: Work, measured: list[tuple[Sample, float]]) -> dict[str, Any]:
    """The share of the machine's limit, each time against the limit measured in its round."""
    limits = [work.seconds(sample) for sample, _ in measured]
    by_bytes = sum(of_bytes >= of_operations for of_bytes, of_operations in limits)
    shares = [max(limit) / taken for limit, (_, taken) in zip(limits, measured, strict=True)]
    return {
        "limit_milliseconds": spread([1000 * max(limit) for limit in limits]),
        "bound_by": "bytes" if 2 * by_bytes >= len(limits) else "operations",
        "fraction_of_limit": spread(shares),
    }


def against_kernel(
    times: list[dict[str, float]], name: str, method: Method, methods: dict[str, Method]
) -> dict[str, Any]:
    """How many times as long as the kernel; for our own index also how much longer."""
    if method.kind == "peer":
        kernels = [other for other in methods.values() if other.kind == "kernel"]
        return {
            "times_kernel": {
                dtype: spread(ratios(times, name, name_of("kernel", dtype, None)))
                for dtype in dict.fromkeys(kernel.dtype for kernel in kernels)
            }
        }
    kernel = name_of("kernel", method.dtype, method.filter)
    longer = [
        1000 * (some[name] - some[kernel]) for some in times if name in some and kernel in some
    ]
    return {
        "times_kernel": {method.dtype: spread(ratios(times, name, kernel))},
        "milliseconds_over_kernel": spread(longer),
    }
