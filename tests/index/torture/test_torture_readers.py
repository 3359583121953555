"""Any number of processes and threads: the same answers as alone, and of one state each."""

import json
import os
import subprocess
import sys

import pytest

from metaembed.index import Index, search
from tests.index.torture import children, plans
from tests.index.torture.chain import require_one_of
from tests.index.torture.many import churn, read_until, take_turns
from tests.index.torture.trials import trials

STATE = {id: number % 4 + 1 for number, id in enumerate(plans.IDS)}


@pytest.fixture
def path(tmp_path):
    """With segments, deleted rows and listed sequences."""
    pairs = list(STATE.items())
    with plans.create(tmp_path / "idx", plans.OPTIONS[1]) as index:
        index.add(*plans.items({"gone": 1} | dict(pairs[:9]), index.dtype))
        index.add(*plans.items(dict(pairs[9:20]) | {"too": 1}, index.dtype))
        index.delete(["gone"])
        index.compact()
        index.add(*plans.items(dict(pairs[20:]), index.dtype))
        index.delete(["too"])
    return tmp_path / "idx"


@pytest.mark.parametrize("num_threads", ["1", "3"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_four_processes_of_four_threads_find_what_one_does(path, tmp_path, method, num_threads):
    """Also where they are forked from a process whose kernel has threads already."""
    environment = os.environ | {"METAEMBED_THREADS": num_threads, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.index.torture.many", path, tmp_path / "all", method]
    subprocess.run(command, cwd=children.ROOT, env=environment, check=True, timeout=200)


@trials(few=6, many=60)
def test_writers_take_turns_and_lose_nothing(tmp_path, tally, numbers):
    plans.create(tmp_path / "idx", plans.OPTIONS[0]).close()
    names = ["a", "b", "c"]
    rounds = len(numbers)
    writers = [children.start(take_turns, tmp_path / "idx", name, rounds) for name in names]
    assert [children.finish(process) for process in writers] == [0, 0, 0]
    with Index.open(tmp_path / "idx") as index:
        held = {one["id"]: one["v"] for one in index.get(index.ids())}
        first = 1 if rounds % 3 == 0 else 0
        expected = {f"{name}-{n}": rounds for name in names for n in range(first, 3)}
        assert dict(sorted(held.items())) == expected
    require_one_of(tmp_path / "idx", [held])
    tally["turns"] += rounds * len(names)


@trials(few=10, many=300)
def test_readers_do_not_notice_that_everything_moves(path, tmp_path, tally, numbers):
    with Index.open(path) as index:
        expected = {
            find.__name__: find_in_json(find, index)
            for find in (plans.found, plans.found_by_sketch, plans.found_with_words)
        }
    stop = tmp_path / "stop"
    readers = [children.start(read_until, path, expected, stop) for _ in range(2)]
    writer = children.start(churn, path, len(numbers), stop)
    codes = [children.finish(process) for process in (writer, *readers)]
    assert codes == [0, 0, 0]
    require_one_of(path, [STATE])
    tally["compactions"] += len(numbers)


def find_in_json(find, index):
    return json.dumps(find(index))


def test_a_hybrid_search_sees_one_state(path, monkeypatch):
    """An item that is added between the two rankings is in both of them, or in none."""
    search_by_vectors = search.search

    def overtaken(*arguments):
        best = search_by_vectors(*arguments)
        if "new" not in writer:
            writer.add(*plans.items({"new": 1}, writer.dtype))
        return best

    with Index.open(path) as writer, Index.open(path) as reader:
        monkeypatch.setattr(search, "search", overtaken)
        found = plans.found_with_words(reader)
        states = [STATE, STATE | {"new": 1}]
        assert found in [plans.hybrid_hits(state, reader.dtype) for state in states]
