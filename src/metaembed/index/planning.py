"""Choosing a cascade: by a rule, or by what sample queries show for a stated recall."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metaembed.budget import Budget
from metaembed.index.cascade import Cascade, Stage
from metaembed.index.snapshot import Snapshot
from metaembed.index.store import Store

FEWEST_ITEMS = 5_000
"""Below this an exact search takes a few milliseconds at most."""
MARGIN = 2.0
"""What is kept over what the sample needs. On 10,240 passages of metaembed-mini other queries then
had a recall of 0.99 in 97 of 100 draws of 100 sample queries; without a margin in 60."""
MAX_SAMPLE = 100
QUERIES_AT_ONCE = 16
TIMED_ITEMS = 1_000


class Choice(NamedTuple):
    """A cascade that reaches a recall on a sample, and what it costs there."""

    cascade: Cascade | None
    """None: nothing is faster than the exact search."""
    recall: float
    """Share of the exact top k that all its stages keep, over the sample."""
    expected_ms: float
    exact_ms: float


class _Option(NamedTuple):
    """One way to score, as the sample found it."""

    stage: Stage
    ranks: Int[np.ndarray, "Q k"]
    """Of the exact top k in the order of this stage."""
    scan_ms: float
    item_us: float
    """For one item among a few that are scattered."""


def default_cascade(budget: Budget, k: int, num_items: int, widths: list[int]) -> Cascade | None:
    """A cascade that is generous for the embeddings measured; `widths` are those of the planes.

    What a stage has to keep grew with the root of the number of items for one candidate vector and
    with its fourth root for 16 (metaembed-mini, 2,000 to 16,000 items), and with the root of k.

    >>> str(default_cascade(Budget(16, 64), 10, 100_000, [1, 4, 8, 16, 64]))
    'sum16x1:4000,sum16x16:675'
    """
    few = [width for width in widths if width <= budget.candidate // 4]
    if num_items < FEWEST_ITEMS or not few:
        return None
    many = math.ceil(4 * math.sqrt(k * num_items))
    stages = [Stage(Budget(budget.query, few[0]), many, is_summed=True)]
    if len(few) > 1:
        fewer = min(many, math.ceil(12 * math.sqrt(k) * num_items**0.25))
        stages.append(Stage(Budget(budget.query, few[-1]), fewer, is_summed=True))
    return Cascade(tuple(stages))


def choose(
    store: Store,
    snapshot: Snapshot,
    queries: Float[np.ndarray, "Q r dim"],
    *,
    budget: Budget,
    k: int,
    recall: float,
) -> Choice:
    """Find the fastest cascade of one or two stages that keeps the exact top k.

    Every stage may miss an equal share of what `recall` allows, and keeps `MARGIN` times that.
    """
    sample = _Sample(store, snapshot, queries[:MAX_SAMPLE], budget, k)
    exact_ms = sample.scan_ms(_all(budget))
    item_us = sample.item_us(_all(budget))
    best = Choice(None, 1.0, exact_ms, exact_ms)
    options = [sample.option(stage) for stage in _stages(budget, sample.widths)]
    allowed = 1 - recall
    for option in options:
        keep = _needed(option.ranks, allowed, least=k)
        cost = option.scan_ms + keep * item_us / 1000
        best = min(best, _choice([(option, keep)], cost, exact_ms), key=_cost)
    for first, second in itertools.permutations(options, 2):
        if second.item_us <= first.item_us:
            continue
        many = _needed(first.ranks, allowed / 2, least=k)
        few = min(many, _needed(second.ranks, allowed / 2, least=k))
        cost = first.scan_ms + (many * second.item_us + few * item_us) / 1000
        best = min(best, _choice([(first, many), (second, few)], cost, exact_ms), key=_cost)
    return best


class _Sample:
    """The queries, what an exact search finds for them, and the clock."""

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        queries: Float[np.ndarray, "Q r dim"],
        budget: Budget,
        k: int,
    ):
        self._store, self._snapshot, self._queries = store, snapshot, queries
        self.widths = [plane.stop for plane in store.segments.layout]
        full = store.candidates(snapshot, budget.candidate)
        self._exact = full.top_k(queries[:, : budget.query], k).positions

    def option(self, stage: Stage) -> _Option:
        return _Option(stage, self._ranks(stage), self.scan_ms(stage), self.item_us(stage))

    def scan_ms(self, stage: Stage) -> float:
        candidates = self._store.candidates(self._snapshot, stage.budget.candidate)
        return _milliseconds(lambda: candidates.top_k(stage.vectors(self._queries[:1]), 1000))

    def item_us(self, stage: Stage) -> float:
        candidates = self._store.candidates(self._snapshot, stage.budget.candidate)
        size = min(TIMED_ITEMS, len(candidates))
        scattered = np.random.default_rng(0)

        def score_some() -> None:  # others each time: those just read would be in the cache
            chosen = np.sort(scattered.choice(len(candidates), size, replace=False, shuffle=False))
            candidates.at(chosen).top_k(stage.vectors(self._queries[:1]), 100)

        return 1000 * _milliseconds(score_some) / size

    def _ranks(self, stage: Stage) -> Int[np.ndarray, "Q k"]:
        candidates = self._store.candidates(self._snapshot, stage.budget.candidate)
        rows = []
        for start in range(0, len(self._queries), QUERIES_AT_ONCE):
            scores = candidates.scores(stage.vectors(self._queries[start:][:QUERIES_AT_ONCE]))
            for some, wanted in zip(scores, self._exact[start:], strict=False):
                # An item goes behind those of its own score: the most it can take.
                ascending = np.sort(some)
                rows.append(len(some) - np.searchsorted(ascending, some[wanted], side="left") - 1)
        return np.array(rows)


def _all(budget: Budget) -> Stage:
    return Stage(budget, keep=1)


def _stages(budget: Budget, widths: list[int]) -> Iterator[Stage]:
    for width in widths:
        if width <= budget.candidate:
            yield Stage(Budget(budget.query, width), 1, is_summed=True)
        if width < budget.candidate and budget.query > 1:
            yield Stage(Budget(budget.query, width), 1)


def _needed(ranks: Int[np.ndarray, "Q k"], missed: float, *, least: int) -> int:
    """How many a stage should keep to miss no more than that share of the top k."""
    ascending = np.sort(ranks, axis=None)
    last = ascending[math.ceil((1 - missed) * len(ascending)) - 1]
    return max(2 * least, math.ceil(MARGIN * (int(last) + 1)))


def _choice(kept: list[tuple[_Option, int]], cost: float, exact_ms: float) -> Choice:
    survives = np.all([option.ranks < keep for option, keep in kept], axis=0)
    cascade = Cascade(tuple(option.stage._replace(keep=keep) for option, keep in kept))
    return Choice(cascade, float(survives.mean()), cost, exact_ms)


def _cost(choice: Choice) -> float:
    return choice.expected_ms


def _milliseconds(work: Callable[[], object]) -> float:
    """The shortest of a few runs: what disturbs only ever adds."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken)
