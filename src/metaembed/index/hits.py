"""From a request to hits: a search of one state of the index, and what the items found are."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index import certified
from metaembed.index.certified import Proof
from metaembed.index.filters import parse_filter
from metaembed.index.planning import Choice, choose
from metaembed.index.queries import require_texts
from metaembed.index.records import decode_metadata
from metaembed.index.search import Request, hybrid, search
from metaembed.index.snapshot import Snapshot
from metaembed.index.store import Store
from metaembed.kernels import Best

OPTIMISTIC_SEARCHES = 4
"""Attempts of a search that let other processes commit meanwhile, before one that holds them."""

Filter = Mapping[str, Any] | None
Changed = Callable[[Snapshot], bool]
"""Whether the catalog is no longer the one of a snapshot; called within a transaction."""
Found = TypeVar("Found")


class Hit(NamedTuple):
    id: str
    score: float
    """MaxSim sum; comparable only inside one budget."""
    metadata: dict[str, Any]


def find(
    store: Store, request: Request, filter: Filter, texts: Sequence[str] | None
) -> list[list[Hit]]:
    """The hits of each query, by its vectors or with the words of its text; see `Index.search`."""
    if texts is not None:
        require_texts(texts, len(request.queries))

    def found(snapshot: Snapshot, unless: Changed) -> list[list[Hit]]:
        if texts is not None:
            is_filtered = filter is not None
            ranked = hybrid(store, snapshot, request, texts, is_filtered=is_filtered)
            return _items_of(store, ranked, snapshot, unless)
        return _hits(store, search(store, snapshot, request), snapshot, unless)

    return _consistently(store, filter, found)


def find_certified(store: Store, request: Request, filter: Filter) -> list[tuple[list[Hit], Proof]]:
    """The hits of each query with what they took; see `Index.search_certified`."""
    sketch = store.manifest.sketch
    if sketch not in ("int8", "int4"):
        raise IndexMismatchError(
            f"A certified search needs a sketch in int8 or int4, and index {store.name!r} "
            f"has {sketch or 'none'}. Copy the index with one, or search it."
        )

    def found(snapshot: Snapshot, unless: Changed) -> list[tuple[list[Hit], Proof]]:
        results = certified.search(
            store, snapshot, request.queries, budget=request.budget, k=request.k
        )
        return [(_hits(store, _row(best), snapshot, unless)[0], proof) for best, proof in results]

    return _consistently(store, filter, found)


def find_cascade(store: Store, request: Request, recall: float) -> Choice:
    """What sample queries show for a recall; see `Index.choose_cascade`."""
    if not 0 < recall < 1:
        raise IndexMismatchError(f"recall is {recall!r}; it lies between 0 and 1.")
    queries, budget, k, _ = request

    def found(snapshot: Snapshot, _unless: Changed) -> Choice:
        if not len(snapshot) or not len(queries):
            return Choice(None, 1.0, 0.0, 0.0)
        return choose(store, snapshot, queries, budget=budget, k=k, recall=recall)

    return _consistently(store, None, found)


def _consistently(
    store: Store, filter: Filter, found: Callable[[Snapshot, Changed], Found]
) -> Found:
    """Search one state of the index, and again when it has changed under the search."""
    tree = None if filter is None else parse_filter(filter)
    # Asking the catalog whether it has changed costs as much as a search at the smallest budgets:
    # where its file looks as it did, that is asked along with what the hits are.
    if (snapshot := store.remembered(tree)) is not None:
        with suppress(IndexFormatError):
            return found(snapshot, store.catalog_differs)
    for _ in range(OPTIMISTIC_SEARCHES):
        snapshot = store.snapshot(tree)
        try:
            return found(snapshot, _never)
        except IndexFormatError:
            # A segment or a hit is gone. That is fine if somebody has just removed it.
            if not store.is_outdated(snapshot):
                raise
    with store.reading():
        return found(store.snapshot(tree), _never)


def _never(_snapshot: Snapshot) -> bool:
    return False


def _hits(store: Store, best: Best, snapshot: Snapshot, unless: Changed) -> list[list[Hit]]:
    sequences = snapshot.sequences_at(best.positions)  # (Q, k)
    return _items_of(
        store,
        [
            list(zip(some, scores, strict=True))
            for some, scores in zip(sequences.tolist(), best.scores.tolist(), strict=True)
        ],
        snapshot,
        unless,
    )


def _items_of(
    store: Store, ranked: list[list[tuple[int, float]]], snapshot: Snapshot, unless: Changed
) -> list[list[Hit]]:
    """Look up what (sequence, score) of each query are, unless the catalog has changed."""
    wanted = {sequence for some in ranked for sequence, _ in some}
    with store.reading():
        is_current = not unless(snapshot)
        items = store.catalog.items(wanted) if is_current else {}
    if not is_current or len(items) != len(wanted):
        raise IndexFormatError(f"Items of index {store.name!r} are gone. Search again.")
    return [
        [Hit(items[one].id, score, decode_metadata(items[one].metadata)) for one, score in some]
        for some in ranked
    ]


def _row(best: Best) -> Best:
    """One query's as that of several."""
    return Best(best.scores[None], best.positions[None])
