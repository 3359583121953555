"""Creating, copying and repairing an index, cut short by a kill or by the power."""

import shutil

import numpy as np
import pytest

from metaembed.errors import IndexFormatError
from metaembed.index import Index
from tests.index.torture import children, plans, writer
from tests.index.torture.chain import require_one_of
from tests.index.torture.power import Disk
from tests.index.torture.recording import record
from tests.index.torture.test_torture_power import LOSSES
from tests.index.torture.trials import trials

OPTIONS = {"dtype": "int8", "sketch": "int4"}
SOUND = dict.fromkeys(plans.IDS[:6], 1)
LOST = dict.fromkeys(plans.IDS[6:9], 1)


class Creation:
    """An index is made, then added to."""

    name, num_lines = "create", 700

    def __init__(self, disk):
        self.arguments = (disk / "idx", OPTIONS)

    def check(self, disk, certain):
        path = disk / "idx"
        if certain == 0 and is_refused(path):
            return
        require_one_of(path, [{}, writer.FIRST][max(0, certain - 1) : certain + 1])


class NestedCreation(Creation):
    """The same, in folders that are made with it."""

    def __init__(self, disk):
        self.arguments = (disk / "new" / "newer" / "idx", OPTIONS)

    def check(self, disk, certain):
        super().check(disk / "new" / "newer", certain)


class Copy:
    """An index with deleted items is copied."""

    name, num_lines = "copy", 700

    def __init__(self, disk):
        with plans.create(disk / "idx", OPTIONS) as index:
            index.add(*plans.items(SOUND | LOST, index.dtype))
            index.delete(list(LOST))
        self.arguments = (disk / "idx", disk / "copy")

    def check(self, disk, certain):
        require_one_of(disk / "idx", [SOUND])
        if certain or not is_refused(disk / "copy"):
            require_one_of(disk / "copy", [SOUND])


class Repair:
    """A segment with a wrong byte is given up; the byte and the other items are kept."""

    name, num_lines = "repair", 900
    version = 0
    """Which has no texts."""

    def __init__(self, disk):
        self._sound = dict.fromkeys(SOUND, self.version)
        with plans.create(disk / "idx", OPTIONS) as index:
            index.add(*plans.items(self._sound, index.dtype))
            index.add(*plans.items(dict.fromkeys(LOST, self.version), index.dtype))
        plane = disk / "idx" / "segments" / "2" / "plane-0-1.npy"
        plane.write_bytes(plane.read_bytes()[:-1] + b"?")
        self.arguments = (disk / "idx",)
        self._files = [file.read_bytes() for file in plane.parent.iterdir()]
        self._catalog = (disk / "idx" / "catalog.sqlite").read_bytes()

    def check(self, disk, certain):
        path = disk / "idx"
        report = Index.repair(path)
        assert set(report.lost) <= set(LOST)
        if certain:
            assert report == ((), ())
        require_one_of(path, [self._sound])
        aside = [file.read_bytes() for file in path.rglob("damaged/**/*") if file.is_file()]
        assert self._catalog in aside
        assert all(content in aside for content in self._files)


class RepairWithTexts(Repair):
    """The same, where items have texts."""

    version = 1


def is_refused(path):
    """Whether the folder is not an index, and says so."""
    try:
        Index.open(path).close()
    except IndexFormatError as error:
        assert "is not an index: it has no manifest.json" in str(error)
        return True
    return False


@trials(few=4, many=100)
@pytest.mark.parametrize(
    "make",
    [
        Creation,
        NestedCreation,
        Copy,
        Repair,
        RepairWithTexts,
    ],
)
def test_what_is_cut_short_by_a_kill_is_there_or_not(tmp_path, tally, make, numbers):
    for number in numbers:
        disk, acknowledged = tmp_path / str(number), tmp_path / f"{number}-acknowledged"
        disk.mkdir()
        job = make(disk)
        kill = {"line": int(np.random.default_rng(number).integers(1, job.num_lines))}
        code = children.run(getattr(writer, job.name), *job.arguments, acknowledged, kill)
        certain = acknowledged.stat().st_size if acknowledged.exists() else 0
        assert code <= 0
        job.check(disk, certain)
        tally[f"{'killed' if code else 'finished'} {make.__name__}"] += 1
        shutil.rmtree(disk)


@trials(few=25, many=250)
@pytest.mark.parametrize(
    "make",
    [
        Creation,
        NestedCreation,
        Copy,
        Repair,
    ],
)
def test_what_is_cut_short_by_a_power_cut_is_there_or_not(tmp_path, tally, strace, make, numbers):
    real, acknowledged = tmp_path / "disk", tmp_path / "acknowledged"
    real.mkdir()
    job = make(real)
    before = shutil.copytree(real, tmp_path / "before")
    calls = record(tmp_path / "log", job.name, *job.arguments, acknowledged)
    shutil.rmtree(real)
    before.rename(real)
    for number in numbers:
        random, loss = np.random.default_rng(number), LOSSES[number % len(LOSSES)]
        num_calls = int(random.integers(len(calls) + 1))
        if number == numbers.start:  # all is done, and all is lost that can be
            num_calls, loss = len(calls), LOSSES[0]
        disk = Disk(real, acknowledged)
        for call in calls[:num_calls]:
            disk.apply(call)
        disk.root.save(tmp_path / "cut", random, loss)
        job.check(tmp_path / "cut", disk.num_acknowledged)
        tally[f"{make.__name__}, lost {loss}"] += 1
        shutil.rmtree(tmp_path / "cut")
