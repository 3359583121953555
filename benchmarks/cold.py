"""A search whose index is not in memory yet, against the plain rate at which its files are read.

python benchmarks/cold.py [--items 25000 --items 100000] [--dtype bfloat16]

Before each measurement the files are dropped from the page cache (posix_fadvise with DONTNEED on
each of them, after a sync), and `resident_after_drop` says how much of them stayed all the same.
Reading takes every file of vectors from beginning to end, 8 MiB at a time; the search runs in a
process of its own, which also reports its anonymous memory: what it holds besides pages of files.
Both take turns. The last searches run while all memory but half the index's size is held, so that
it never fits.
"""

import argparse
import ctypes
import json
import logging
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from corpus import planted
from ours import build_index
from provenance import ROOT, provenance, store
from rounds import seconds, spread

from metaembed.budget import Budget
from metaembed.storage import STORAGE_TYPES

RESULTS = ROOT / "benchmarks/results/cold.json"
BUDGET = Budget(16, 64)
BALLAST = 2**28
"""Bytes that are held at a time."""
SQUEEZED_ROUNDS = 5
DIM = 128
READ_BYTES = 2**23
SAMPLE_SECONDS = 0.001

log = logging.getLogger(__name__)


def drop(files: list[Path]) -> None:
    """Ask the kernel to forget the files' pages; those that a process maps would stay."""
    os.sync()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def resident(files: list[Path]) -> float:
    """The part of the files that is in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    cached = total = 0
    for file in files:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as pages:
            array = np.frombuffer(pages, np.uint8)
            found = np.zeros(-(-array.size // mmap.PAGESIZE), np.uint8)
            start, flags = (ctypes.c_void_p(some.ctypes.data) for some in (array, found))
            if libc.mincore(start, ctypes.c_size_t(array.size), flags):
                raise OSError(ctypes.get_errno(), "mincore failed", str(file))
            cached += int((found & 1).sum())
            total += len(found)
            del array
    return cached / total


def read(files: list[Path]) -> None:
    buffer = bytearray(READ_BYTES)
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise KeyError(field)


@contextmanager
def anonymous_peak() -> Iterator[Callable[[], int]]:
    """Watch this process's anonymous memory; the value yielded tells its peak so far."""
    peak = status("RssAnon")
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_SECONDS):
            peak = max(peak, status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: peak
    finally:
        done.set()
        watcher.join()


def search(folder: Path, dtype: str) -> dict[str, float]:
    """Open the index and search it twice: the first time cold, the second as warm as it gets.

    A tiny index is searched before, so that libraries are loaded and threads are there.
    """
    from metaembed.index import Index

    source = planted(1, DIM, BUDGET, num_queries=1)
    queries = source.queries()
    with tempfile.TemporaryDirectory() as tiny, build_index(Path(tiny), source, dtype) as index:
        index.search(queries, budget=BUDGET)
    before = status("RssAnon")
    start = time.perf_counter()
    with Index.open(folder) as index, anonymous_peak() as peak:
        opened = time.perf_counter() - start
        taken = [seconds(lambda: index.search(queries, budget=BUDGET)) for _ in range(2)]
        return {
            "open_seconds": opened,
            "search_seconds": taken[0],
            "warm_seconds": taken[1],
            "anonymous_bytes_before": before,
            "anonymous_bytes_peak": peak(),
            "resident_bytes_peak": status("VmHWM"),
        }


def search_apart(folder: Path, dtype: str) -> dict[str, float]:
    """`search` in a process that has nothing of the index mapped yet."""
    command = [sys.executable, __file__, "--search", str(folder), "--dtype", dtype]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


@contextmanager
def squeezed(limit: int) -> Iterator[None]:
    """Hold all of the machine's free memory but `limit` bytes, so that no more of a file can stay.

    Only where there is no swap, into which the memory that is held would go instead.
    """
    if int(field_of("/proc/meminfo", "SwapTotal")):
        raise OSError("there is swap")
    held = []
    while (free := 1024 * int(field_of("/proc/meminfo", "MemAvailable"))) > limit + BALLAST:
        ballast = mmap.mmap(-1, min(BALLAST, free - limit))
        for page in range(0, len(ballast), mmap.PAGESIZE):
            ballast[page] = 1
        held.append(ballast)
    try:
        yield
    finally:
        for ballast in held:
            ballast.close()


def field_of(file: str, name: str) -> str:
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def squeezed_searches(files: list[Path], folder: Path, dtype: str) -> dict[str, Any]:
    """Searches, and reads beside them, with room for half of the vectors in memory."""
    num_bytes = sum(file.stat().st_size for file in files)
    reads, searches = [], []
    try:
        with squeezed(num_bytes // 2):
            for _ in range(SQUEEZED_ROUNDS):
                drop(files)
                reads.append(seconds(lambda: read(files)))
                searches.append(search_apart(folder, dtype))
    except (OSError, subprocess.CalledProcessError) as error:
        return {"limit_bytes": num_bytes // 2, "refused": str(error)}
    pairs = zip(searches, reads, strict=True)
    return {
        "limit_bytes": num_bytes // 2,
        "read_seconds": spread(reads),
        "search_seconds": spread([found["search_seconds"] for found in searches]),
        "again_seconds": spread([found["warm_seconds"] for found in searches]),
        "times_read": spread([found["search_seconds"] / taken for found, taken in pairs]),
    }


def measure(folder: Path, dtype: str, *, rounds: int) -> dict[str, Any]:
    vectors = sorted(file for file in (folder / "segments").rglob("*") if file.is_file())
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    num_bytes = sum(file.stat().st_size for file in vectors)
    reads, searches, left = [], [], []
    for number in range(rounds):
        for reading in (True, False) if number % 2 else (False, True):
            drop(files)
            left.append(resident(vectors))
            if reading:
                reads.append(seconds(lambda: read(vectors)))
            else:
                searches.append(search_apart(folder, dtype))
        log.info("read %.2f s, search %.2f s", reads[-1], searches[-1]["search_seconds"])
    drop(files)
    pairs = zip(searches, reads, strict=True)
    return {
        "vector_bytes": num_bytes,
        "resident_after_drop": max(left),
        "rounds": rounds,
        "read_seconds": spread(reads),
        "read_gigabytes_per_second": spread([num_bytes / taken / 1e9 for taken in reads]),
        "times_read": spread([found["search_seconds"] / taken for found, taken in pairs]),
        **{name: spread([found[name] for found in searches]) for name in searches[0]},
        "squeezed": squeezed_searches(vectors, folder, dtype),
    }


def run_case(num_items: int, *, dtype: str, rounds: int) -> dict[str, Any]:
    source = planted(num_items, DIM, BUDGET, num_queries=1)
    with tempfile.TemporaryDirectory(prefix="metaembed-") as folder:
        path = Path(folder) / "index"
        log.info("%d items: building", num_items)
        build_index(path, source, dtype, compact=False).close()
        return {
            "provenance": provenance(synthetic=True),
            "num_items": num_items,
            "dim": DIM,
            "budget": str(BUDGET),
            "dtype": dtype,
            **measure(path, dtype, rounds=rounds),
        }


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, action="append")
    parser.add_argument("--dtype", default="bfloat16", choices=STORAGE_TYPES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.search:
        sys.stdout.write(json.dumps(search(arguments.search, arguments.dtype)))
        return
    for num_items in arguments.items or [25_000, 100_000]:
        result = run_case(num_items, dtype=arguments.dtype, rounds=arguments.rounds)
        store(arguments.out, f"{num_items}-{DIM}-{arguments.dtype}", result)


if __name__ == "__main__":
    main()
