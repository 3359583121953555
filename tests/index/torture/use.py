"""Use of an index that may be damaged: whatever happens has to be an answer or a clear error."""

import faulthandler
import json
import os
import resource
import shutil
import traceback
from pathlib import Path

import numpy as np

from metaembed.errors import MetaEmbedError
from metaembed.index import Index
from tests.index.torture.damage import damage

SECONDS = 30
"""More than any use of so small an index takes."""

ROOM = 2**30
"""Bytes of memory that a process may take beyond what it has."""


def use_all(source, folder, seeds, log):
    """Damage a copy of an index and use it, for every seed; a line of JSON for each."""
    limit_memory()
    with Path(log).open("a") as file, Path(f"{log}-trace").open("w") as traces:
        faulthandler.enable(traces)
        for seed in seeds:
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=traces)
            path = shutil.copytree(source, folder / "idx", symlinks=True)
            before = contents(path)
            _note(file, seed=seed, done=damage(path, seed))
            _note(file, **use(path), before=before)
            shutil.rmtree(folder / "idx")
        faulthandler.cancel_dump_traceback_later()


def limit_memory():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def contents(path):
    """What a reader gets of an index: None where it gets an error."""
    try:
        with Index.open(path) as index:
            ids = index.ids()
            return [ids, index.get(ids), index.texts(ids), index.embeddings(ids).tolist()]
    except MetaEmbedError:
        return None


def use(path):
    """Read, verify, write and repair; returns what came of it, or how it went wrong."""
    outcome = {"wrong": []}
    opened = read(path, outcome["wrong"])
    outcome |= {"opened": opened, "problems": None, "after": None}
    if opened:
        outcome["problems"] = attempt(lambda: verify(path), outcome["wrong"])
        outcome["after"] = attempt(lambda: contents(path), outcome["wrong"])
    write(path, outcome["wrong"])
    if attempt(lambda: Index.repair(path), outcome["wrong"]) is not None:
        _require_repaired(path, outcome["wrong"])
    return outcome


def attempt(function, wrong):
    """What a call returns; None after a `MetaEmbedError`. Everything else is wrong."""
    try:
        return function()
    except MetaEmbedError as error:
        if "\n" in str(error) or not str(error).isprintable():
            wrong.append(f"not one line: {str(error)!r}")
    except Exception:
        wrong.append(traceback.format_exc())
    return None


def read(path, wrong):
    """Everything that only reads; whether the index opened."""
    index = attempt(lambda: Index.open(path), wrong)
    if index is None:
        return False
    queries = np.ones((2, index.limit.query, index.dim), np.float32)
    with index:
        ids = attempt(index.ids, wrong) or []
        cascade = f"~{index.limit}:1000" if index.sketch else f"{index.limit}:1000"
        for function in (
            lambda: index.search(queries, k=99),
            lambda: index.search(queries, "1x1"),
            lambda: index.search(queries, filter={"n": {"gt": 1}}),
            lambda: index.search(queries, cascade=cascade),
            lambda: index.search(queries, texts=["common", "words"]),
            lambda: index.search_certified(queries),
            lambda: index.get(ids),
            lambda: index.texts(ids),
            lambda: index.embeddings(ids),
            lambda: ("x" in index, len(index)),
            index.stats,
        ):
            attempt(function, wrong)
    return True


def verify(path):
    with Index.open(path) as index:
        return index.verify()


def write(path, wrong):
    """Everything that writes."""
    index = attempt(lambda: Index.open(path), wrong)
    if index is not None:
        with index:
            vectors = np.ones((1, index.num_vectors, index.dim))
            for function in (
                lambda: index.add(["new"], vectors, texts=["common"]),
                lambda: index.upsert(["new"], vectors),
                lambda: index.delete(["new", *index.ids()[:1]]),
                index.compact,
            ):
                attempt(function, wrong)


def _require_repaired(path, wrong):
    """After a repair an index is sound."""
    problems = attempt(lambda: verify(path), wrong)
    if problems != []:
        wrong.append(f"after a repair: {problems}")
    before = len(wrong)
    read(path, wrong)
    wrong[before:] = [f"after a repair: {problem}" for problem in wrong[before:]]


def _note(file, **fields):
    file.write(json.dumps(fields) + "\n")
    file.flush()


def repair_within_limits(path, log):
    """Repair an index, or say in a line that it cannot be repaired."""
    limit_memory()
    wrong = []
    attempt(lambda: Index.repair(path), wrong)
    Path(log).write_text("\n".join(wrong))


SPECIAL = ("fifo", "folder", "zeros", "nothing", "dangling", "loop", "outside", "huge")


def use_special(original, path, name, kind, log):
    """Use an index in which something else is in the place of a file."""
    limit_memory()
    with Path(log).open("w") as file:
        faulthandler.dump_traceback_later(SECONDS_FOR_ONE, exit=True, file=file)
        shutil.copytree(original, path)
        substitute(path / name, kind)
        outcome = use(path)
        faulthandler.cancel_dump_traceback_later()
        file.write("\n".join(outcome["wrong"]))


SECONDS_FOR_ONE = 10


def substitute(file, kind):
    if file.is_dir():
        file.rename(file.with_name("moved"))
    elif file.exists():
        file.rename(file.parent.parent / f"moved-{file.name}")
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "zeros":
            file.symlink_to("/dev/zero")
        case "nothing":
            file.symlink_to("/dev/null")
        case "dangling":
            file.symlink_to("/nowhere")
        case "loop":
            file.symlink_to(file.name)
        case "outside":
            file.symlink_to(file.parent.parent / f"moved-{file.name}")
        case "huge":
            file.touch()
            os.truncate(file, 2**33)
