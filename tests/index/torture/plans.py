"""What a writer is told to do, and the states in which the index may then be seen.

A state is a dict {id: version} in insertion order. Vectors and metadata follow from the id and the
version, and are whole numbers whose scores are exact in every storage type.
"""

import json
import zlib
from functools import cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.random

from metaembed.index import Index, batches
from metaembed.index.fusion import reciprocal_rank_fusion
from metaembed.index.search import FUSION_K

GROUPS = ["1x1", "2x4"]
DIM = 6

OPTIONS = (
    {"dtype": "float16"},
    {"dtype": "int8", "sketch": "int4"},
    {"dtype": "int4", "sketch": "binary"},
    {"dtype": "bfloat16", "sketch": "int8"},
    {"dtype": "float32"},
)
IDS = [f"item-{n}" for n in range(40)]

QUERY = np.full((1, 2, DIM), 3, np.float32)
QUERY[0, 0, 0] = QUERY[0, 1, 1] = 127


class Operation(NamedTuple):
    kind: str
    batches: tuple[dict[str, int], ...] = ()
    """Of items: those of one call, those that `extend` gets, those of the sources of a merge."""
    replace: bool = False

    def states(self, state):
        """Every state that it leads to, one after the other."""
        if self.kind == "compact":
            return [state]
        reached = []
        for batch in self.batches:
            state = {id: version for id, version in state.items() if id not in batch}
            if self.kind != "delete":
                state = state | batch
            reached.append(state)
        return reached

    def run(self, index, acknowledge):
        """Do it, and call `acknowledge` with the number of states that are certain now."""
        match self.kind:
            case "compact":
                index.compact()
            case "delete":
                index.delete(list(self.batches[0]))
            case "add" | "upsert":
                getattr(index, self.kind)(*items(self.batches[0], index.dtype))
            case "extend":
                index.extend(self._acknowledged(index, acknowledge), replace=self.replace)
            case "merge":
                self._merge(index)
        acknowledge(len(self.batches) if self.kind == "merge" else 1)

    @property
    def num_pending(self):
        """How many states can be there before the next one is acknowledged."""
        return len(self.batches) if self.kind == "merge" else 1

    def _acknowledged(self, index, acknowledge):
        """Each batch fills a segment, so that it is durable when the next one is asked for."""
        for number, batch in enumerate(self.batches):
            if number:
                acknowledge(1)
            batches.SEGMENT_BYTES = len(batch) * index.bytes_per_item()
            yield items(batch, index.dtype)

    def _merge(self, index):
        sources = [Index.open(path) for path in source_paths(index.path, self)]
        try:
            index.merge(sources, replace=self.replace)
        finally:
            for source in sources:
                source.close()


def make_plan(seed, state, *, version, length=4):
    """Random operations that fit an index in some state; versions count on from `version`."""
    random = np.random.default_rng(seed)
    operations = []
    for _ in range(length):
        operation, version = _random_operation(random, state, version)
        operations.append(operation)
        state = operation.states(state)[-1]
    return operations


def to_json(operations):
    return json.dumps(operations)


def from_json(text):
    return [Operation(kind, tuple(batches), replace) for kind, batches, replace in json.loads(text)]


def source_paths(path, operation):
    """Where the sources of a merge are."""
    name = zlib.crc32(json.dumps(operation.batches).encode())
    return [path.parent / f"source-{name}-{number}" for number in range(len(operation.batches))]


def make_sources(path, operations, options):
    """Write what the merges of a plan take in."""
    for operation in operations:
        if operation.kind == "merge":
            for source, batch in zip(source_paths(path, operation), operation.batches, strict=True):
                if not source.exists():
                    with create(source, options) as index:
                        index.add(*items(batch, index.dtype))


def create(path, options):
    return Index.create(path, dim=DIM, groups=GROUPS, **options)


def items(batch, dtype):
    """Ids, vectors, metadata and texts of a batch."""
    pairs = list(batch.items())
    made = np.stack([vectors(*pair, dtype) for pair in pairs])
    return list(batch), made, [metadata(*pair) for pair in pairs], [text(*pair) for pair in pairs]


@cache
def vectors(id, version, dtype):
    """Whole numbers up to one that has the scale 1 in `dtype`."""
    random = np.random.default_rng([zlib.crc32(id.encode()), version])
    made = random.integers(-7, 8, (4, DIM)).astype(np.float32)
    if dtype == "int4":
        made[1:, version % DIM] = 7
    else:
        made[1:] *= 9
        made[1:, version % DIM] = -127
    made[0, random.integers(DIM)] = 127
    return made


def metadata(id, version):
    """Sometimes longer than a page of SQLite."""
    length = (0, 10, 300, 9000)[zlib.crc32(f"{id} {version}".encode()) % 4]
    return {"id": id, "v": version, "pad": "x" * length}


def text(id, version):
    """Two words, the first of which is everybody's; nothing for the first version."""
    return f"common {id.replace('-', '')}v{version}" if version else None


def hits(state, dtype):
    """What `QUERY` finds: [id, score, version], equal scores in insertion order."""
    if not state:
        return []
    held = np.stack([vectors(*pair, dtype) for pair in state.items()])
    scores = np.einsum("qd,nvd->nqv", QUERY[0], held).max(axis=2).sum(axis=1)
    order = np.argsort(-scores, kind="stable").tolist()
    pairs = list(state.items())
    return [[pairs[n][0], float(scores[n]), pairs[n][1]] for n in order]


def found(index, cascade=None):
    """What `QUERY` finds in an index, as `hits` has it."""
    (best,) = index.search(QUERY, k=1000, cascade=cascade)
    return [[hit.id, hit.score, hit.metadata["v"]] for hit in best]


def found_by_sketch(index):
    """The same, by way of the sketch if there is one."""
    return found(index, None if index.sketch is None else "~2x4:1000")


def hybrid_hits(state, dtype):
    """What `QUERY` finds with the word of all texts, which come in insertion order: as `hits`."""
    by_vectors = [id for id, _, __ in hits(state, dtype)]
    by_words = [id for id, version in state.items() if text(id, version)]
    fused = reciprocal_rank_fusion([by_vectors, by_words], k=FUSION_K)
    return [[id, score, state[id]] for id, score in fused]


def found_with_words(index):
    (best,) = index.search(QUERY, k=1000, texts=["common"])
    return [[hit.id, hit.score, hit.metadata["v"]] for hit in best]


SEARCHES = ((found, hits), (found_by_sketch, hits), (found_with_words, hybrid_hits))
"""Each with what it has to give."""


def _random_operation(random, state, version):
    """An operation and the next version."""
    kinds = ["add", "upsert", "delete", "compact", "extend", "merge"]
    kind = str(random.choice(kinds, p=[0.2, 0.25, 0.2, 0.1, 0.15, 0.1]))
    held, free = list(state), [id for id in IDS if id not in state]
    if kind == "compact":
        return Operation("compact"), version
    if kind == "delete":
        return Operation("delete", (_batch(random, held or IDS, 0),)), version
    replace = kind == "upsert" or bool(random.integers(2)) or len(free) < 12
    if kind == "add" and replace:
        kind = "upsert"
    num_batches = int(random.integers(1, 4)) if kind in ("extend", "merge") else 1
    chosen = _batch(random, IDS if replace else free, version)
    if num_batches > 1:  # of different ids, so that each is a segment
        pairs = list(chosen.items())
        parts = [dict(pairs[n::num_batches]) for n in range(num_batches)]
        return Operation(kind, tuple(filter(None, parts)), replace), version + 1
    return Operation(kind, (chosen,), replace), version + 1


def _batch(random, ids, version):
    size = min(len(ids), int(random.integers(1, 9)))
    return dict.fromkeys(random.choice(ids, size, replace=False).tolist(), version)


def all_states(operations, state):
    """The state at the beginning, and each one after it."""
    reached = [[state]]
    for operation in operations:
        reached.append(operation.states(reached[-1][-1]))
    return list(chain.from_iterable(reached))
