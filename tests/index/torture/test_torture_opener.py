"""Damaged files of every kind: an error that says so, or an index that works; never a crash."""

import json
import shutil

import pytest

from metaembed.errors import IndexFormatError
from metaembed.index import Index
from tests.index.examples import FORMAT_1, sql
from tests.index.test_index_legacy import make_legacy
from tests.index.torture import children, plans
from tests.index.torture.trials import trials
from tests.index.torture.use import SPECIAL, repair_within_limits, use_all, use_special

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


QUICK = ("fifo", "folder", "zeros")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "idx"
    with_texts_and_gaps(path)
    return path


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.torture] * (kind not in QUICK)) for kind in SPECIAL],
)
@pytest.mark.parametrize("name", FILES)
def test_something_else_in_the_place_of_a_file_neither_hangs_nor_crashes(
    original, tmp_path, name, kind
):
    log = tmp_path / "log"
    code = children.run(use_special, original, tmp_path / "copy" / "idx", name, kind, log)
    assert (code, log.read_text()) == (0, "")


def copy_with(original, path, *statements):
    shutil.copytree(original, path)
    sql(path, *statements)
    return path


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'items'",
        "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'segments'",
        "UPDATE sqlite_sequence SET seq = 4611686018427387903 WHERE name = 'items'",
        "INSERT INTO deleted VALUES (9223372036854775807)",
        "UPDATE items SET sequence = 9223372036854775807 WHERE id = 'item-6'",
    ],
)
def test_counters_at_their_end_are_damage_that_a_writer_reports(original, tmp_path, statement):
    path = copy_with(original, tmp_path / "idx", statement)
    with pytest.raises(IndexFormatError, match="is damaged"), Index.open(path) as index:
        index.upsert(*plans.items({"new": 1}, index.dtype))


@pytest.mark.parametrize("num_rows", [2**31, 2**53, 2**62, 2**63 - 1])
def test_a_repair_of_version_1_does_not_believe_in_endless_segments(tmp_path, num_rows):
    shutil.copytree(FORMAT_1, tmp_path / "idx")
    sql(tmp_path / "idx", f"UPDATE segments SET num_rows = {num_rows} WHERE number = 2")
    log = tmp_path / "log"
    assert children.run(repair_within_limits, tmp_path / "idx", log) == 0
    assert log.read_text() == ""


def test_what_is_not_utf_8_is_said_in_a_printable_line(original, tmp_path):
    text = "800107" + b"x".hex() * 9000
    statement = f"UPDATE items SET metadata = CAST(x'{text}' AS TEXT) WHERE id = 'item-1'"
    path = copy_with(original, tmp_path / "idx", statement)
    with Index.open(path) as index, pytest.raises(IndexFormatError) as caught:
        index.get(["item-1"])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_repair_forgets_texts_that_belong_to_nothing(original, tmp_path):
    path = copy_with(
        original, tmp_path / "idx", "UPDATE texts_docsize SET id = 4294967297 WHERE id = 5"
    )
    with Index.open(path) as index:
        assert index.verify() != []
    Index.repair(path)
    with Index.open(path) as index:
        assert index.verify() == []


def shown(failures):
    lines = [f"{damage} {problem}" for damage, problem in failures[:5]]
    return "\n".join([f"{len(failures)} times, for example", *lines])
