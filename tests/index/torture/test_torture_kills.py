"""A writer that is killed at any moment: what it acknowledged is there, and nothing half-there.

It dies by SIGKILL before a random line of the index's code, at a random time, or on entering a
random system call (which strace arranges, so that SQLite's commits are cut in all their steps); or
the system kills it when a file has grown to a random size, the last write cut off there. The page
cache outlives a process: see `test_torture_power` for what is lost with the power.
"""

import shutil

import numpy as np
import pytest

from metaembed.index import Index
from tests.index.test_index_legacy import make_legacy
from tests.index.torture import children, plans
from tests.index.torture.chain import Chain
from tests.index.torture.trials import trials
from tests.index.torture.writer import write

NUM_LINES = 3000
"""About as many as a plan of four operations runs."""

SYSTEM_CALLS = "write,pwrite64,fsync,fdatasync,openat,mkdir,unlink,unlinkat,rmdir,ftruncate,close"
NUM_SYSTEM_CALLS = 250

TRIALS_OF_A_CHAIN = 20
"""After these another index is begun, in the next of `plans.OPTIONS`."""


def at_a_line(chain, random, plan, num_lines=NUM_LINES):
    kill = {"line": int(random.integers(1, num_lines)), "spills": bool(random.integers(2))}
    return children.run(write, chain.path, plan, chain.acknowledged, kill)


def at_a_time(chain, random, plan):
    arguments = (chain.path, plan, chain.acknowledged, {"spills": bool(random.integers(2))})
    code = children.run_for(float(random.uniform(0, chain.patience)), write, *arguments)
    chain.patience *= 1.1 if code else 0.7
    return code


def at_a_byte(chain, random, plan):
    kill = {"byte": int(2 ** random.uniform(0, 18)), "spills": bool(random.integers(2))}
    return children.run(write, chain.path, plan, chain.acknowledged, kill)


def at_a_system_call(chain, random, plan):
    if not children.has_strace():
        pytest.skip("it needs strace")
    injection = f"{SYSTEM_CALLS}:signal=KILL:when={random.integers(1, NUM_SYSTEM_CALLS)}"
    arguments = (chain.path, plan, chain.acknowledged, {"spills": bool(random.integers(2))})
    return children.run_injected(injection, chain.path.parent / "strace", write, *arguments)


@trials(few=3, many=250)
@pytest.mark.parametrize("die", [at_a_line, at_a_time, at_a_byte, at_a_system_call])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path, tally, die, numbers):
    for first in range(numbers.start, numbers.stop, TRIALS_OF_A_CHAIN):
        last = min(first + TRIALS_OF_A_CHAIN, numbers.stop)
        chain = begin(tmp_path / str(first), first)
        with chain.readers(tally):
            for number in range(first, last):
                random = np.random.default_rng(number)
                operations = chain.plan(number)
                code = die(chain, random, plans.to_json(operations))
                assert code <= 0
                is_more = chain.settle(operations)
                outcome = "finished first" if code == 0 else "killed"
                tally[f"{outcome} {die.__name__}" + ", one more is there" * is_more] += 1
                chain.go_on()


def begin(folder, number):
    """Begin an index; every third one is of format version 1, and its first writer upgrades it."""
    folder.mkdir()
    options = plans.OPTIONS[number // 3 % len(plans.OPTIONS)]
    if number % 3 == 2:
        options = plans.OPTIONS[0]
        state = dict.fromkeys(plans.IDS[:9], 0)
        with plans.create(folder / "idx", options) as index:
            index.add(*plans.items(state, index.dtype))
        make_legacy(folder / "idx")
        return Chain(folder, options, state)
    return Chain(folder, options)


@trials(few=3, many=100)
def test_an_upgrade_that_is_killed_has_happened_or_not(tmp_path, tally, numbers):
    state = dict.fromkeys(plans.IDS[:9], 0)
    with plans.create(tmp_path / "old", plans.OPTIONS[0]) as index:
        index.add(*plans.items(state, index.dtype))
        index.delete(plans.IDS[2:4])
        index.upsert(*plans.items({plans.IDS[5]: 0}, index.dtype))
    make_legacy(tmp_path / "old")
    with Index.open(tmp_path / "old") as index:
        state = {one["id"]: one["v"] for one in index.get(index.ids())}
    for number in numbers:
        random = np.random.default_rng(number)
        path = shutil.copytree(tmp_path / "old", tmp_path / str(number) / "idx")
        chain = Chain(path.parent, plans.OPTIONS[0], state)
        operations = [plans.Operation("delete", ({"nobody": 0},))]
        code = at_a_line(chain, random, plans.to_json(operations), num_lines=900)
        chain.settle(operations)
        tally["killed" if code else "finished first"] += 1
        chain.go_on()
