"""One index that is written and killed again and again, with all that has ever been true of it."""

import contextlib
import json
import shutil

from metaembed.index import Index
from tests.index.torture import children, plans
from tests.index.torture.writer import Acknowledgements, read


class Chain:
    """States follow each other in `history`; as many as are certain stand in a file."""

    def __init__(self, folder, options, state=None, *, path=None):
        """The index is at `path`, which defaults to one in `folder`."""
        self.path = path or folder / "idx"
        self.options = options
        self.patience = 0.3
        """Seconds in which a writer is killed."""
        self.acknowledged = folder / "acknowledged"
        self.history = [state or {}]
        self._version = 1
        self._folder = folder
        if not self.path.exists():
            plans.create(self.path, options).close()
        with self._acknowledgements() as file:
            file.add(1)

    @property
    def state(self):
        return self.history[-1]

    def plan(self, seed, **options):
        """Operations to go on with, and everything that they need."""
        operations = plans.make_plan(seed, self.state, version=self._version, **options)
        self._version += len(operations)
        plans.make_sources(self.path, operations, self.options)
        return operations

    def settle(self, operations):
        """Find out how far a writer came, and require that nothing acknowledged is missing.

        Returns whether the operation under way is there although it was not acknowledged.
        """
        with self._acknowledgements() as file:
            certain = file.count() - len(self.history)
            states = plans.all_states(operations, self.state)
            assert certain < len(states)
            window = states[certain : certain + 1 + num_pending(operations, certain)]
            reached = require_one_of(self.path, window)
            file.add(reached)
        self.history += states[1 : certain + reached + 1]
        for source in self.path.parent.glob("source-*"):
            shutil.rmtree(source)
        return reached > 0

    def go_on(self):
        """Require that the index can be written, and that nothing is left over then."""
        self._version += 1
        batch = {"probe": self._version}
        with Index.open(self.path) as index, self._acknowledgements() as file:
            index.upsert(*plans.items(batch, index.dtype))
            self.history += plans.Operation("upsert", (batch,)).states(self.state)
            file.add(1)
            numbers = {str(entry.segment.number) for entry in index._store.snapshot().entries}
        assert {folder.name for folder in (self.path / "segments").iterdir()} == numbers
        files = {file.name for file in self.path.iterdir()}
        assert files == {"manifest.json", "catalog.sqlite", "segments", "lock"}

    @contextlib.contextmanager
    def readers(self, tally):
        """Let processes search all the time, and require that all they see was ever true."""
        stop = self._folder / "stop"
        outs = [self._folder / f"seen-{kind}" for kind in range(len(plans.SEARCHES))]
        processes = [
            children.start(read, self.path, self.acknowledged, stop, out, kind)
            for kind, out in enumerate(outs)
        ]
        try:
            yield
        finally:
            stop.touch()
            codes = [children.finish(process) for process in processes]
        assert set(codes) == {0}
        for out, (_, expected) in zip(outs, plans.SEARCHES, strict=True):
            report = json.loads(out.read_text())
            self._require_true(report, expected)
            tally["searches beside them"] += report["searches"]

    def _require_true(self, report, expected):
        assert report["problem"] is None, report["problem"]
        truth = [json.dumps(expected(state, self.options["dtype"])) for state in self.history]
        last = 0
        for before, after, number in report["seen"]:
            # Not before what was acknowledged, nor what it has seen; nothing that was not to be.
            window = range(max(before - 1, last), min(after + 3, len(truth)))
            last = next((n for n in window if truth[n] == report["states"][number]), None)
            assert last is not None, f"a reader saw none of the states {window}"

    @contextlib.contextmanager
    def _acknowledgements(self):
        file = Acknowledgements(self.acknowledged)
        yield file
        file.close()


def num_pending(operations, certain):
    """How many states can be there beyond those that are acknowledged."""
    for operation in operations:
        num_states = max(1, len(operation.batches))
        if certain < num_states:
            return operation.num_pending
        certain -= num_states
    return 0


def require_one_of(path, states):
    """Require that an index is sound and in one of some states, and return which."""
    with Index.open(path) as index:
        ids = index.ids()
        held = {one["id"]: one["v"] for one in index.get(ids)}
        assert list(held) == ids
        pairs = [list(state.items()) for state in states]
        assert list(held.items()) in pairs, f"{held} is none of {states}"
        assert index.verify() == []
        assert len(index) == len(ids)
        for (id, version), vectors in zip(held.items(), index.embeddings(ids), strict=True):
            assert vectors.tobytes() == plans.vectors(id, version, index.dtype).tobytes()
            assert index.get([id]) == [plans.metadata(id, version)]
            assert index.texts([id]) == [plans.text(id, version)]
        for search, expected in plans.SEARCHES:
            assert search(index) == expected(held, index.dtype)
        # Where nothing changes, as in a compaction, the later state is as true.
        return len(pairs) - 1 - pairs[::-1].index(list(held.items()))
