"""Disks that are full, fail, or cannot be written: one clear line, and nothing half-there."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from metaembed.errors import IndexFormatError
from metaembed.index import Index
from tests.index.torture import children, plans, writer
from tests.index.torture.chain import Chain, require_one_of
from tests.index.torture.trials import trials

FAILING = (
    "write,pwrite64,pread64,fsync,fdatasync,openat,mkdir,unlink,unlinkat,rmdir,ftruncate,"
    "flock,fcntl,mmap,getdents64"
)
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EACCES", "EROFS", "ENOMEM", "EMFILE", "ENOLCK")
NUM_SYSTEM_CALLS = 400

STATE = dict.fromkeys(plans.IDS[:5], 1)


@pytest.fixture
def disk(tmp_path):
    """A small file system; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True
    )
    if done.returncode:
        pytest.skip("it needs the permission to mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@trials(few=8, many=200)
def test_a_full_disk_is_said_and_loses_nothing(tmp_path, disk, tally, numbers):
    chain = Chain(tmp_path, plans.OPTIONS[numbers.start % 5], path=disk / "idx")
    ballast = disk / "ballast"
    for number in numbers:
        random = np.random.default_rng(number)
        operations = chain.plan(number)
        # Almost all of it at once, and the rest in pages.
        left = int(random.integers(0, 60)) * os.statvfs(disk).f_frsize
        ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - left)))
        report = tmp_path / "report"
        arguments = (chain.path, plans.to_json(operations), chain.acknowledged, report)
        code = children.run(writer.write_until_refused, *arguments)
        tally[require_clear(code, report)] += 1
        ballast.unlink()
        chain.settle(operations)
        chain.go_on()


@trials(few=5, many=300)
@pytest.mark.usefixtures("strace")
def test_a_system_call_that_fails_is_said_and_loses_nothing(tmp_path, tally, numbers):
    chain, failures = Chain(tmp_path, plans.OPTIONS[numbers.start % 5]), []
    for number in numbers:
        random = np.random.default_rng(number)
        operations = chain.plan(number)
        first = int(random.integers(1, NUM_SYSTEM_CALLS))
        calls = str(random.choice(FAILING.split(",") + [FAILING] * 16))
        if calls != FAILING:
            first = first // 10 + 1
        injection = f"{calls}:error={random.choice(ERRORS)}:when={first}"
        report = tmp_path / "report"
        arguments = (chain.path, plans.to_json(operations), chain.acknowledged, report)
        code = children.run_injected(
            injection, tmp_path / "strace", writer.write_until_refused, *arguments
        )
        if code == 1:
            failures.append(f"{injection}: {report.read_text()}")
        else:
            tally[require_clear(code, report, injection)] += 1
        chain.settle(operations)
        chain.go_on()
    assert not failures, "\n".join(failures)


@trials(few=10, many=100)
@pytest.mark.usefixtures("strace")
def test_a_stat_that_fails_is_said(tmp_path, numbers):
    """As on a disk that is dying or a network file system that went away."""
    report = tmp_path / "report"
    make(tmp_path)
    for number in numbers:
        arguments = (tmp_path / "idx", tmp_path / "other", report)
        injection = f"newfstatat:error=EIO:when={number - numbers.start + 1}"
        code = children.run_injected(
            injection, tmp_path / "strace", writer.stat_in_every_way, *arguments
        )
        assert code in (0, writer.REFUSED), report.read_text()


def require_clear(code, report, context=""):
    """Require that a writer has finished or said in a line why not; returns which."""
    if code == 0:
        return "finished"
    assert code == writer.REFUSED, f"exit code {code} {context}"
    said = report.read_text()
    assert said
    assert "\n" not in said
    report.unlink()
    return "refused"


def make(folder):
    """An index, another one to merge, and a place for what is said."""
    for name in ("idx", "other"):
        with plans.create(folder / name, plans.OPTIONS[1]) as index:
            index.add(*plans.items(STATE, index.dtype))
            index.delete(plans.IDS[:1])
    return {id: version for id, version in STATE.items() if id != plans.IDS[0]}


def require_refused(folder, report, user=None):
    report.touch(mode=0o666)
    report.chmod(0o666)
    arguments = (folder / "idx", folder / "other", report, user)
    assert children.run(writer.refused_everywhere, *arguments) == 0
    said = json.loads(report.read_text())
    assert len(said) == 7
    for line in said:
        assert line.startswith("Index 'idx' cannot be written: ")
        assert "\n" not in line


def test_a_read_only_disk_is_read_and_every_writer_refused(tmp_path, disk):
    state = make(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    require_refused(disk, tmp_path / "report")
    require_one_of(disk / "idx", [state])


def test_a_folder_without_write_permission_is_read_and_every_writer_refused():
    if os.geteuid():
        pytest.skip("it needs the permission to become somebody else")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = make(folder)
        with without_write_permission(folder):
            require_refused(folder, folder.parent / f"{folder.name}-report", user=65534)
            require_one_of(folder / "idx", [state])
    (folder.parent / f"{folder.name}-report").unlink()


def test_a_commit_cut_short_on_a_disk_that_became_read_only_is_said(disk):
    state = make(disk)
    assert children.run(writer.die_in_a_commit, disk / "idx") == -9
    assert (disk / "idx" / "catalog.sqlite-journal").stat().st_size > 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(IndexFormatError, match="in the middle of a commit") as caught:
        Index.open(disk / "idx")
    assert "\n" not in str(caught.value)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    require_one_of(disk / "idx", [state])


@contextlib.contextmanager
def without_write_permission(folder):
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)
