"""Searches over a snapshot: exact, or by a cascade of cheaper stages."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metaembed.budget import Budget
from metaembed.errors import IndexFormatError
from metaembed.index.cascade import Cascade, Stage
from metaembed.index.fusion import reciprocal_rank_fusion
from metaembed.index.snapshot import Snapshot
from metaembed.index.store import Store
from metaembed.kernels import Best, Candidates

FUSED = 100
"""How far down a ranking counts in a hybrid search."""
FUSION_K = 10.0
"""Better than the usual 60 at every budget on held-out documentation (benchmarks/hybrid.py)."""


class Request(NamedTuple):
    """What is asked of a search."""

    queries: Float[np.ndarray, "Q r_q dim"]
    """With at least as many vectors as any stage takes."""
    budget: Budget
    k: int
    cascade: Cascade | None = None


def search(store: Store, snapshot: Snapshot, request: Request) -> Best:
    """The best items of a snapshot with their scores at the budget; positions in the snapshot."""
    if request.cascade is None:
        candidates = store.candidates(snapshot, request.budget.candidate)
        return candidates.top_k(request.queries[:, : request.budget.query], request.k)
    found = _survivors(store, snapshot, request)
    best = [
        _rescored(store, snapshot, request, query, positions)
        for query, positions in enumerate(found)
    ]
    return Best(
        np.stack([one.scores for one in best]) if best else np.empty((0, 0), np.float32),
        np.stack([one.positions for one in best]) if best else np.empty((0, 0), np.int64),
    )


def hybrid(
    store: Store,
    snapshot: Snapshot,
    request: Request,
    texts: Sequence[str],
    *,
    is_filtered: bool,
) -> list[list[tuple[int, float]]]:
    """For each query (sequence, score) of the best, by its vectors and its words together."""
    depth = max(FUSED, request.k)
    by_vectors = search(store, snapshot, request._replace(k=depth))
    sequences = snapshot.sequences_at(by_vectors.positions).tolist()
    allowed = snapshot.sequences if is_filtered else None
    with store.reading():
        if store.catalog.version() != snapshot.version:  # the words would be of a later state
            raise IndexFormatError(f"Index {snapshot.name!r} has changed. Search again.")
        lexical = store.catalog.texts()
        by_words = [lexical.rank(text, limit=depth, allowed=allowed) for text in texts]
    return [
        reciprocal_rank_fusion([some, words.sequences.tolist()], k=FUSION_K)[: request.k]
        for some, words in zip(sequences, by_words, strict=True)
    ]


def _survivors(
    store: Store, snapshot: Snapshot, request: Request
) -> list[Int[np.ndarray, " keep"]]:
    """What the first stage keeps of each query: ascending positions."""
    assert request.cascade is not None
    first = request.cascade.stages[0]
    best = _candidates(store, snapshot, first).top_k(first.vectors(request.queries), first.keep)
    return list(np.sort(best.positions, axis=1))


def _rescored(
    store: Store,
    snapshot: Snapshot,
    request: Request,
    query: int,
    positions: Int[np.ndarray, " keep"],
) -> Best:
    """Take one query through the later stages and the full score."""
    assert request.cascade is not None
    vectors = request.queries[query : query + 1]
    for stage in request.cascade.stages[1:]:
        some = _candidates(store, snapshot, stage).at(positions)
        best = some.top_k(stage.vectors(vectors), stage.keep)
        positions = positions[np.sort(best.positions[0])]
    some = store.candidates(snapshot, request.budget.candidate).at(positions)
    best = some.top_k(vectors[:, : request.budget.query], request.k)
    return Best(best.scores[0], positions[best.positions[0]])


def _candidates(store: Store, snapshot: Snapshot, stage: Stage) -> Candidates:
    return store.candidates(snapshot, stage.budget.candidate, sketch=stage.is_sketch)
