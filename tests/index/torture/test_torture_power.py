"""The power goes at any moment: what was acknowledged is there, and nothing half-there.

Every system call of a writer is recorded, those of SQLite included, and replayed on a file system
that may lose what was not synced (see `power`). Losing nothing is what a kill at that call leaves.
"""

import itertools
import shutil

import numpy as np
import pytest

from metaembed.errors import IndexFormatError
from metaembed.index import Index
from tests.index.test_index_legacy import make_legacy
from tests.index.torture import plans
from tests.index.torture.chain import num_pending, require_one_of
from tests.index.torture.power import Disk
from tests.index.torture.recording import record
from tests.index.torture.trials import trials

LOSSES = ("everything", "nothing", "the last", "some")

CUTS_OF_A_RECORDING = 50
"""After these the next recording is made, of an index with the next of `plans.OPTIONS`."""


pytestmark = pytest.mark.usefixtures("strace")


class Recording:
    """An index as it was, what was done to it, and the system calls of that."""

    def __init__(self, folder, number):
        self.disk, self.acknowledged = folder / "disk", folder / "acknowledged"
        self.disk.mkdir(parents=True)
        path, options = self.disk / "idx", plans.OPTIONS[number % len(plans.OPTIONS)]
        is_legacy = options == plans.OPTIONS[0]
        state = dict.fromkeys(plans.IDS[:9], 0 if is_legacy else 1)
        with plans.create(path, options) as index:
            index.add(*plans.items(state, index.dtype))
        if is_legacy:
            make_legacy(path)
        self.operations = plans.make_plan(number, state, version=2, length=6)
        self.states = plans.all_states(self.operations, state)
        plans.make_sources(path, self.operations, options)
        before = shutil.copytree(self.disk, folder / "before")
        plan, kill = plans.to_json(self.operations), {"spills": number % 2 == 1}
        arguments = (path, plan, self.acknowledged, kill)
        self.calls = record(folder / "log", "write", *arguments)
        shutil.rmtree(self.disk)
        before.rename(self.disk)


def replayed(recording, calls):
    disk = Disk(recording.disk, recording.acknowledged)
    for call in calls:
        disk.apply(call)
    return disk


@trials(few=40, many=1000)
def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path, tally, numbers):
    for count, some in itertools.groupby(numbers, lambda number: number // CUTS_OF_A_RECORDING):
        recording = Recording(tmp_path / str(count), count)
        for number in some:
            random = np.random.default_rng(number)
            loss = LOSSES[number % len(LOSSES)]
            num_calls = int(random.integers(len(recording.calls) + 1))
            disk = replayed(recording, recording.calls[:num_calls])
            disk.root.save(tmp_path / "cut", random, loss)
            is_more = require_window(tmp_path / "cut" / "idx", recording, disk.num_acknowledged)
            tally[f"lost {loss}" + ", one more is there" * is_more] += 1
            shutil.rmtree(tmp_path / "cut")


def require_window(path, recording, certain):
    """Require an index to be in a state that it may be in, and to take in more."""
    last = certain + 1 + num_pending(recording.operations, certain)
    is_more = require_one_of(path, recording.states[certain:last])
    with Index.open(path) as index:
        index.upsert(*plans.items({"probe": 999}, index.dtype))
        assert index.verify() == []
    return is_more > 0


@pytest.mark.parametrize("name", ["fsync", "fdatasync"])
def test_a_writer_that_does_not_sync_would_be_found_out(tmp_path, name):
    """The index calls fsync and SQLite fdatasync; without either something is lost."""
    recording = Recording(tmp_path, 1)
    calls = [call for call in recording.calls if call.name != name]
    disk = replayed(recording, calls)
    assert disk.num_acknowledged == len(recording.states) - 1
    disk.root.save(tmp_path / "cut", np.random.default_rng(0), "everything")
    with pytest.raises((IndexFormatError, AssertionError), match=r"damaged|is none of"):
        require_window(tmp_path / "cut" / "idx", recording, disk.num_acknowledged)


def test_vectors_are_durable_before_a_commit_touches_the_database(tmp_path):
    recording = Recording(tmp_path, 3)
    disk, num_writes = Disk(recording.disk, recording.acknowledged), 0
    for call in recording.calls:
        if call.name == "pwrite64" and disk.is_open(call.arguments[0], "idx/catalog.sqlite"):
            num_writes += 1
            segments = disk.root.names["idx"].names["segments"]
            for name, segment in segments.names.items():
                assert segments.durable[name] is segment
                assert segment.durable == segment.names
                assert not any(file.pending for file in segment.names.values())
        disk.apply(call)
    assert num_writes > 10
