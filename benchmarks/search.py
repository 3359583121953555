"""Exact search against its peers and against the machine's limits: who takes how long.

python benchmarks/search.py                                every case; an hour and a half, 20 GB
python benchmarks/search.py --case '100000-128-*'          some; the others keep their results
python benchmarks/search.py --quick                        2,000 items, to see that it runs

A case is a number of items, a dim and a budget. It runs in a process of its own, in which our
kernel, `Index.search` and the peers take turns, after a first pass that is not timed and in which
every result is compared with float32. In each round the machine's limits are measured as well.
Data are random (`synthetic.py`): speed does not depend on them, quality would.
"""

import argparse
import itertools
import logging
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, chosen_cases
from comparison import (
    K,
    Method,
    against_kernel,
    against_limit,
    checked,
    name_of,
    work_of,
)
from corpus import Corpus, build, planted
from machine import Machine, summary
from ours import FILTERS, Public, build_index, file_kernel, filtered_rows, memory_kernel
from peers import kinds
from provenance import ROOT, provenance, store
from rounds import column, interleaved, spread
from synthetic import Planted

from metaembed.budget import Budget
from metaembed.storage import StorageType

RESULTS = ROOT / "benchmarks/results/search.json"
QUICK_RESULTS = ROOT / "build/bench/search.json"
BATCHES = (1, 32)
CHECKED_BATCHES = 8
"""Batches of different queries, through which each method goes in turn."""

INDEX_TYPES: tuple[StorageType, ...] = ("bfloat16", "int8")

log = logging.getLogger(__name__)


@contextmanager
def methods_of(case: Case) -> Iterator[tuple[Corpus, dict[str, Method]]]:
    """Prepare everything that takes part; the indexes first, since building takes memory."""
    source = planted(case.num_items, case.dim, case.budget, num_queries=max(BATCHES))
    chosen = kinds(case.peers, case.budget)
    public: dict[str, Method] = {}
    peers: dict[str, Method] = {}
    with ExitStack() as stack:
        for dtype in INDEX_TYPES if case.public else ():
            public |= stack.enter_context(index_methods(source, case.budget, dtype))
        log.info("%s: candidates", case)
        whole = {kind.dtype for kind in chosen.values()}
        corpus = build(source, case.budget, types=case.types, whole=whole)
        for name, kind in chosen.items():
            log.info("%s: %s", case, name)
            peer = kind.prepare(corpus, kind.dtype)
            stack.callback(peer.close)
            peers[name] = Method("peer", kind.dtype, None, peer)
        yield corpus, {**kernel_methods(corpus, case), **public, **peers}


def kernel_methods(corpus: Corpus, case: Case) -> dict[str, Method]:
    """The bare kernels; with the rows of a filter as well, where an index is filtered."""
    methods = {}
    for dtype in case.types:
        filters = FILTERS if case.public and dtype in INDEX_TYPES else ()
        for filter in (None, *filters):
            kernel = memory_kernel(corpus, dtype, filtered_rows(filter, case.num_items))
            methods[name_of("kernel", dtype, filter)] = Method("kernel", dtype, filter, kernel)
    return methods


@contextmanager
def index_methods(
    source: Planted, budget: Budget, dtype: StorageType
) -> Iterator[dict[str, Method]]:
    log.info("index of %s", dtype)
    with tempfile.TemporaryDirectory(prefix="metaembed-") as folder:
        path = Path(folder) / "index"
        with build_index(path, source, dtype) as index:
            mapped = file_kernel(path, budget, source.dim, dtype)
            methods = {
                name_of("mapped kernel", dtype, None): Method("mapped kernel", dtype, None, mapped)
            }
            for name, filter in [(None, None), *FILTERS.items()]:
                public = Public(index, budget, filter)
                methods[name_of("index", dtype, name)] = Method("index", dtype, name, public)
            yield methods


def in_turn(method: Method, batches: list[np.ndarray]) -> Callable[[], object]:
    endless = itertools.cycle(batches)
    return lambda: method.searcher.search(next(endless), K)


def run_case(case: Case, *, rounds: int, machine: Machine, longest: float) -> dict[str, Any]:
    result = {
        "provenance": provenance(synthetic=True),
        "num_items": case.num_items,
        "dim": case.dim,
        "budget": str(case.budget),
        "machine": machine.report(),
    }
    measured = []
    with methods_of(case) as (corpus, methods):
        for batch in BATCHES:
            found, estimates = run_batch(
                corpus, methods, batch=batch, rounds=rounds, machine=machine
            )
            measured.append(found)
            for name in slow_peers(methods, estimates, batch, longest):
                del methods[name]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**result, "peak_memory_bytes": peak, "batches": measured}


def slow_peers(
    methods: dict[str, Method], estimates: dict[str, float], batch: int, most: float
) -> list[str]:
    """Peers that would take too long for the next, larger batch. Says so."""
    longest = most * batch / max(BATCHES)
    slow = [
        name
        for name, method in methods.items()
        if method.kind == "peer" and estimates[name] > longest
    ]
    if slow:
        log.info("left out from here on, too slow: %s", ", ".join(slow))
    return slow


def run_batch(
    corpus: Corpus, methods: dict[str, Method], *, batch: int, rounds: int, machine: Machine
) -> tuple[dict[str, Any], dict[str, float]]:
    """The measurements of one size of batch, and about how many seconds each method takes."""
    starts = range(0, min(len(corpus.queries), CHECKED_BATCHES * batch), batch)
    batches = [corpus.queries[start : start + batch] for start in starts]
    qualities, estimates = {}, {}
    for name, method in methods.items():
        log.info("batch of %d: %s", batch, name)
        if method.kind == "peer":
            method.searcher.tune(batches[0])
        qualities[name], estimates[name] = checked(corpus, method, batches)
    log.info("batch of %d: timing", batch)
    times, samples = interleaved(
        {name: in_turn(method, batches) for name, method in methods.items()},
        estimates=estimates,
        always=[name for name, method in methods.items() if method.kind == "kernel"],
        rounds=rounds,
        before_round=machine.sample,
    )
    rows = []
    for name, method in methods.items():
        if method.kind == "kernel":
            measured = list(zip(samples, column(times, name), strict=True))
            compared = against_limit(work_of(corpus, method, batch=batch), measured)
        else:
            compared = against_kernel(times, name, method, methods)
        rows.append(
            {
                **{"name": name, "kind": method.kind, "dtype": method.dtype},
                "filter": method.filter,
                "milliseconds": spread([1000 * value for value in column(times, name)]),
                **compared,
                **qualities[name],
            }
        )
    result = {"batch": batch, "rounds": rounds, "machine": summary(samples), "rows": rows}
    return result, estimates


def run_apart(chosen: list[Case], arguments: argparse.Namespace) -> None:
    """Run each case in a process of its own, so that its memory is free for the next one."""
    failed = []
    for case in chosen:
        command = [sys.executable, __file__, "--case", str(case), "--rounds", str(arguments.rounds)]
        command += ["--longest", str(arguments.longest)]
        command += ["--out", str(arguments.out)] if arguments.out else []
        command += ["--quick"] if arguments.quick else []
        if subprocess.run(command, check=False).returncode:
            failed.append(str(case))
    if failed:
        sys.exit(f"Failed: {' '.join(failed)}")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", default=[], help="like 100000-128-16x64, or *")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--longest", type=float, default=100, help="seconds of a batch that a peer may take"
    )
    parser.add_argument("--quick", action="store_true", help="2,000 items")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--list", action="store_true", help="only list the cases")
    arguments = parser.parse_args()
    chosen = chosen_cases(arguments.case, quick=arguments.quick)
    if not chosen:
        sys.exit("No such case; see --list.")
    if arguments.list:
        sys.stdout.writelines(f"{case}\n" for case in chosen)
        return None
    if len(chosen) > 1:
        return run_apart(chosen, arguments)
    machine = Machine(buffer_bytes=2**26) if arguments.quick else Machine()
    result = run_case(
        chosen[0], rounds=arguments.rounds, machine=machine, longest=arguments.longest
    )
    out = arguments.out or (QUICK_RESULTS if arguments.quick else RESULTS)
    store(out, str(chosen[0]), result)
    return None


if __name__ == "__main__":
    main()
