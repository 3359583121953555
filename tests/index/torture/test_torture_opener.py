"""Damaged files of every kind: an error that says so, or an index that works; never a crash."""

import json
import shutil

import pytest

from metaembed.index import Index
from tests.index.examples import FORMAT_1
from tests.index.test_index_legacy import make_legacy
from tests.index.torture import children, plans
from tests.index.torture.trials import trials
from tests.index.torture.use import SPECIAL, use_all, use_special

AT_ONCE = 25
"""Damages that one process tries."""


def small_format_1(path):
    shutil.copytree(FORMAT_1, path)


def large_format_1(path):
    make(path, plans.OPTIONS[0], version=0)
    make_legacy(path)


def with_texts_and_gaps(path):
    make(path, plans.OPTIONS[1], version=1)


def make(path, options, version):
    """Segments with consecutive sequences, with listed ones, and with deleted rows."""
    with plans.create(path, options) as index:
        index.add(*plans.items(dict.fromkeys(plans.IDS[:12], version), index.dtype))
        index.delete(plans.IDS[2:4])
        index.compact()
        index.add(*plans.items(dict.fromkeys(plans.IDS[12:20], version), index.dtype))
        index.delete(plans.IDS[5:6] + plans.IDS[15:16])
        index.add(*plans.items(dict.fromkeys(plans.IDS[20:21], version), index.dtype))


@trials(few=25, many=500)
@pytest.mark.parametrize("original", [small_format_1, large_format_1, with_texts_and_gaps])
def test_damage_gives_a_clear_error_or_a_working_index(tmp_path, tally, original, numbers):
    original(tmp_path / "original")
    with Index.open(tmp_path / "original") as index:
        assert index.verify() == []
    failures = []
    for first in range(numbers.start, numbers.stop, AT_ONCE):
        log, folder = tmp_path / "log", tmp_path / "copies"
        folder.mkdir()
        seeds = range(first, min(first + AT_ONCE, numbers.stop))
        code = children.run(use_all, tmp_path / "original", folder, seeds, log)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for damage, outcome in zip(lines[::2], lines[1::2], strict=False):
            tally[classified(damage, outcome, failures)] += 1
        if code:
            trace = (tmp_path / "log-trace").read_text()
            failures.append((lines[-1], f"exit code {code}\n{trace}"))
        log.unlink()
        shutil.rmtree(folder)
    assert not failures, shown(failures)


def classified(damage, outcome, failures):
    """What came of a damage; what must not be goes to `failures`."""
    failures += [(damage, problem) for problem in outcome["wrong"]]
    if not outcome["opened"]:
        return "refused to open"
    if outcome["problems"] is None or outcome["after"] is None:
        return "opened, then an error"
    if outcome["problems"]:
        return "opened, and verify found it"
    if outcome["after"] == outcome["before"]:
        return "opened, and all is there"
    if damage["done"].startswith(("in_bytes", "in_header")) and ".npy" in damage["done"]:
        failures.append((damage, "vectors have changed and verify finds nothing"))
    return "opened, and nobody notices that ids, metadata or texts have changed"


FILES = (
    "manifest.json",
    "catalog.sqlite",
    "catalog.sqlite-journal",
    "catalog.sqlite-wal",
    "lock",
    "segments",
    "segments/2",
    "segments/2/plane-0-1.npy",
    "segments/2/sketch-error-1-4.npy",
)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", FILES)
def test_something_else_in_the_place_of_a_file_neither_hangs_nor_crashes(tmp_path, name, kind):
    with_texts_and_gaps(tmp_path / "original")
    log = tmp_path / "log"
    arguments = (tmp_path / "original", tmp_path / "copy" / "idx", name, kind, log)
    code = children.run(use_special, *arguments)
    assert (code, log.read_text()) == (0, "")


def shown(failures):
    lines = [f"{damage} {problem}" for damage, problem in failures[:400]]
    return "\n".join([f"{len(failures)} times, for example", *lines])
