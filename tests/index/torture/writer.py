"""The process that writes an index until it is killed, and those that read it meanwhile."""

import contextlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import metaembed.index
from metaembed.errors import MetaEmbedError
from metaembed.index import Index, merging, npy
from metaembed.index.database import Database
from metaembed.kernels import kernel_name
from tests.index.torture import plans

CODE = str(Path(metaembed.index.__file__).parent)

FIRST = dict.fromkeys(plans.IDS[:9], 1)
"""What `create` adds."""

REFUSED = 3
"""How a writer exits after an error that a user may meet."""


class Acknowledgements:
    """A file with a byte for every state that is certain; it outlives its writer."""

    def __init__(self, path):
        self._descriptor = insist(os.open, path, os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def add(self, number):
        """One system call, after the index's call has returned."""
        insist(os.write, self._descriptor, b"." * number)

    def count(self):
        return os.fstat(self._descriptor).st_size

    def close(self):
        os.close(self._descriptor)


def insist(function, *arguments):
    """Call a function again when the system call in it was made to fail."""
    for _ in range(9):
        with contextlib.suppress(OSError):
            return function(*arguments)
    return function(*arguments)


def write(path, plan, acknowledged, kill=None, ready=None):
    """Carry out a plan; `kill` is how to die meanwhile."""
    if ready is not None:
        ready.recv_bytes()
    with spilling(kill), Index.open(path) as index:
        arm(kill)
        carry_out(index, plans.from_json(plan), Acknowledgements(acknowledged))


def carry_out(index, operations, acknowledged):
    merging.FANOUT = 3  # so that few additions have segments to merge
    for operation in operations:
        operation.run(index, acknowledged.add)


def write_until_refused(path, plan, acknowledged, report, ready=None):
    """Carry out a plan up to the first error that says what it is, in one line."""
    kernel_name()  # it is loaded before anything fails
    if ready is not None:
        ready.recv_bytes()
    try:
        with Index.open(path) as index:
            try:
                carry_out(index, plans.from_json(plan), Acknowledgements(acknowledged))
            except MetaEmbedError:
                plans.found(index)  # reading goes on
                raise
    except MetaEmbedError as error:
        insist(Path(report).write_text, str(error))
        sys.exit(REFUSED)
    except Exception:
        insist(Path(report).write_text, traceback.format_exc())
        sys.exit(1)


@contextlib.contextmanager
def spilling(kill):
    """Let changes reach the database before their commit, as large ones do."""
    prepare = Database._prepare

    def with_small_cache(self, connection, *rest):
        prepare(self, connection, *rest)
        connection.execute("PRAGMA cache_size = 3")

    if kill is not None and kill.get("spills"):
        Database._prepare = with_small_cache
    yield
    Database._prepare = prepare


def arm(kill):
    match kill:
        case {"line": number}:
            kill_at_line(number)
        case {"byte": number}:
            kill_at_byte(number)


def kill_at_line(number):
    """Die before the n-th line of the index's code that is run from now on."""
    left = number

    def count(_, event, __):
        nonlocal left
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    def trace(frame, *_):
        return count if frame.f_code.co_filename.startswith(CODE) else None

    sys.settrace(trace)


def kill_at_byte(number):
    """Let the system kill this process when a file grows beyond a size, its bytes up to there
    written."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def read(path, acknowledged, stop, out, kind):
    """Search until told to stop; list what was seen, and what was acknowledged before and after.

    `kind` is one of `plans.SEARCHES`; every second one maps even the smallest files.
    """
    search, _ = plans.SEARCHES[kind]
    npy.SMALL_BYTES = (npy.SMALL_BYTES, 0)[kind % 2]
    states, seen, problem, num_searches = {}, [], None, 0
    counter = Acknowledgements(acknowledged)
    try:
        with Index.open(path) as index:
            while not stop.exists():
                before = counter.count()
                state = states.setdefault(json.dumps(search(index)), len(states))
                num_searches += 1
                observation = (before, counter.count(), state)
                if not seen or seen[-1] != observation:
                    seen.append(observation)
                time.sleep(0.003)
    except Exception as error:
        problem = "".join(traceback.format_exception(error))
    report = {"states": list(states), "seen": seen, "problem": problem, "searches": num_searches}
    out.write_text(json.dumps(report))


def create(path, options, acknowledged, kill=None):
    """Make an index and add to it."""
    arm(kill)
    counter = Acknowledgements(acknowledged)
    with plans.create(Path(path), options) as index:
        counter.add(1)
        index.add(*plans.items(FIRST, index.dtype))
        counter.add(1)


def copy(path, target, acknowledged, kill=None):
    with Index.open(path) as index:
        arm(kill)
        index.copy(target).close()
    Acknowledgements(acknowledged).add(1)


def repair(path, acknowledged, kill=None):
    arm(kill)
    Index.repair(path)
    Acknowledgements(acknowledged).add(1)


def die_in_a_commit(path):
    """Leave a journal that the next reader has to play back."""
    index = Index.open(path)
    with index._store.writing() as catalog:
        # With so small a cache the changed pages reach the file before the commit.
        catalog.database.execute("PRAGMA cache_size = 1")
        catalog.database.execute("UPDATE items SET metadata = printf('%.*c', 90000, 'x')")
        os.kill(os.getpid(), signal.SIGKILL)


def stat_in_every_way(path, other, report, ready):
    """Open, search, write and merge, up to the first error that says what it is."""
    kernel_name()
    ready.recv_bytes()
    try:
        with Index.open(path) as index, Index.open(other) as source:
            plans.found(index)
            index.upsert(*plans.items({"new": 1}, index.dtype))
            index.merge([source], replace=True)
            index.compact()
    except MetaEmbedError:
        sys.exit(REFUSED)
    except Exception:
        insist(Path(report).write_text, traceback.format_exc())
        sys.exit(1)


def refused_everywhere(path, source, report, user=None):
    """Read an index, then try to write it in every way; list what was said."""
    if user is not None:
        os.setuid(user)
    said = []
    with Index.open(path) as index, Index.open(source) as other:
        items = plans.items({"new": 1}, index.dtype)
        plans.found(index)
        for write in (
            lambda: index.add(*items),
            lambda: index.upsert(*items),
            lambda: index.extend([items]),
            lambda: index.delete(index.ids()[:1]),
            lambda: index.merge([other]),
            index.compact,
            lambda: Index.repair(path),
        ):
            try:
                write()
                said.append("")
            except MetaEmbedError as error:
                said.append(str(error))
        plans.found(index)
    with Path(report).open("r+") as file:
        json.dump(said, file)


def main():
    """Call a function of this file in a process of its own, with arguments in JSON."""
    function, *arguments = json.loads(sys.argv[1])
    globals()[function](*arguments)


if __name__ == "__main__":
    main()
