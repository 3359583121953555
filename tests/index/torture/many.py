"""Many processes and threads that use one index."""

import json
import multiprocessing
import sys
import threading
import time
from pathlib import Path

import numpy as np

from metaembed.errors import IndexFormatError
from metaembed.index import Index
from tests.index.torture import plans

NUM_PROCESSES = 4
NUM_THREADS = 4
SECONDS = 100


def questions(index):
    """Searches of all kinds, as functions that give what JSON can hold."""
    random = np.random.default_rng(5)
    queries = random.standard_normal((3, index.limit.query, index.dim)).astype(np.float32)
    asked = []
    for budget in (str(index.limit), "1x1", "2x3"):
        for k in (1, 7, 1000):
            asked.append(lambda b=budget, k=k: index.search(queries, b, k))
            asked.append(lambda b=budget, k=k: index.search(queries, b, k, {"v": {"lt": 3}}))
    asked.append(lambda: index.search(queries, k=5, cascade="1x1:20,2x3:9"))
    asked.append(lambda: index.search(queries, k=5, texts=["common", "item3v1", "nothing"]))
    asked.append(lambda: index.search(queries[:1]))
    if index.sketch is not None:
        asked.append(lambda: index.search(queries, k=5, cascade="~2x4:20"))
    asked.append(lambda: index.embeddings(index.ids()).tolist())
    return asked


def answers(path):
    """In one thread; what JSON makes of it compares scores bit by bit."""
    with Index.open(path) as index:
        return [json.dumps(ask()) for ask in questions(index)]


def compare(path, expected):
    """Exit with 0 if the threads of this process all get what is expected."""
    expected = json.loads(Path(expected).read_text())
    problems = []
    with Index.open(path) as index:
        asked = questions(index)

        def search(number):
            order = np.random.default_rng(number).permutation(len(asked))
            try:
                for place in [*order, *order]:
                    assert json.dumps(asked[place]()) == expected[place], place
            except BaseException as error:
                problems.append(repr(error))

        threads = [threading.Thread(target=search, args=[n]) for n in range(NUM_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.exit("; ".join(problems) if problems else 0)


def start_all(path, expected, method):
    """Search here, so that the kernel has its threads; then in processes started by `method`."""
    Path(expected).write_text(json.dumps(answers(path)))
    context = multiprocessing.get_context(method)
    processes = [
        context.Process(target=compare, args=[path, expected]) for _ in range(NUM_PROCESSES)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + SECONDS
    for process in processes:
        process.join(max(0, end - time.monotonic()))
        process.kill()
    assert json.dumps(answers(path)) == json.dumps(json.loads(Path(expected).read_text()))
    sys.exit(int(any(process.exitcode != 0 for process in processes)))


def take_turns(path, name, rounds):
    """Upsert items of one's own, again and again, whoever else writes meanwhile."""
    with Index.open(path) as index:
        for version in range(1, rounds + 1):
            batch = dict.fromkeys([f"{name}-{n}" for n in range(3)], version)
            insist_on_a_turn(lambda items=plans.items(batch, index.dtype): index.upsert(*items))
            if version % 3 == 0:
                insist_on_a_turn(lambda: index.delete([f"{name}-0"]))
                insist_on_a_turn(index.compact)


def insist_on_a_turn(write):
    while True:
        try:
            return write()
        except IndexFormatError as error:
            if "is being written by another process" not in str(error):
                raise
            time.sleep(0.002)


def churn(path, rounds, stop):
    """Move everything on disk again and again, but change nothing."""
    with Index.open(path) as index:
        ids = index.ids()[-2:]
        versions = [one["v"] for one in index.get(ids)]
        batch = dict(zip(ids, versions, strict=True))
        for _ in range(rounds):
            index.upsert(*plans.items(batch, index.dtype))
            index.compact()
    Path(stop).touch()


def read_until(path, expected, stop):
    """Exit with 0 if all searches of all threads, until `stop` is there, give the expected."""
    problems, counts = [], []

    def search(index, find):
        try:
            while not Path(stop).exists():
                assert json.dumps(find(index)) == expected[find.__name__]
                counts.append(1)
        except BaseException as error:
            problems.append(repr(error))

    with Index.open(path) as index:
        finders = [plans.found, plans.found_by_sketch, plans.found_with_words]
        threads = [threading.Thread(target=search, args=[index, find]) for find in finders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.exit("; ".join(problems) if problems or not counts else 0)


if __name__ == "__main__":
    start_all(*sys.argv[1:])
