"""Which examples make a batch: runs of one source at a time, sources drawn by weight.

In-batch negatives from the same source are harder than those from others, so a batch consists of
runs; several runs of different sources keep its gradient from being that of one task.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from metaembed.errors import RecipeError

LOOK_AHEAD = 1_000
"""Rows of a source that are looked through for one that is no duplicate, before another source
takes its place: sets like HatefulMemes have two different positives in all."""

Keys = Callable[[int], tuple[int, int]]


class InterleavedBatchSampler:
    """Batches of indexes into a mixture, for `torch.utils.data.DataLoader(batch_sampler=...)`.

    An epoch has as many batches as the sources have rows for. For each run a source is drawn by
    its probability, and its rows come in a random order that is new in every epoch and whenever
    the source has been used up; so in one epoch a source with a high probability comes several
    times, and one with a low probability in part.

    The same seed and epoch give the same batches, which is what resuming by skipping needs.

    Processes: accelerate deals batches out in turn, `batch_size` is then that of a process and
    `num_processes` consecutive batches are one step. Runs, and the promise of `keys`, are of such
    a step; a run may begin in one batch and end in the next.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        batch_size: int,
        interleave: int,
        probabilities: Sequence[float] | None = None,
        seed: int = 0,
        drop_last: bool = True,
        num_processes: int = 1,
        keys: Keys | None = None,
    ) -> None:
        """`interleave` rows make a run. With `keys` (see `Mixture.keys`) no step holds two rows
        whose queries or whose positives have equal keys."""
        if batch_size < 1 or interleave < 1 or num_processes < 1:
            raise RecipeError(
                f"Batches of {batch_size}, runs of {interleave} and {num_processes} processes: "
                "each has to be at least 1."
            )
        if not sizes or min(sizes) < 1:
            raise RecipeError("Every source needs at least one row to draw batches from.")
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.epoch = 0
        self._sizes = tuple(sizes)
        self._interleave = interleave
        self._probabilities = np.array(probabilities or sizes, dtype=np.float64)
        self._probabilities /= self._probabilities.sum()
        self._seed = seed
        self._step_size = batch_size * num_processes
        self._keys = keys

    @property
    def sampler(self) -> "InterleavedBatchSampler":
        """Itself: accelerate passes the epoch on to the sampler of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(sum(self._sizes), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        epoch = _Epoch(self._sizes, seed=(self._seed, self.epoch), keys=self._keys)
        left = len(self) * self.batch_size if self.drop_last else sum(self._sizes)
        while left > 0:
            step = self._step(epoch, min(left, self._step_size))
            left -= len(step)
            for start in range(0, len(step), self.batch_size):
                yield step[start : start + self.batch_size]

    def _step(self, epoch: "_Epoch", size: int) -> list[int]:
        """The rows of one step, run after run."""
        epoch.begin_step()
        rows: list[int] = []
        exhausted = np.zeros(len(self._sizes), dtype=bool)
        while len(rows) < size:
            source = self._draw(epoch, exhausted, size)
            asked = min(self._interleave, size - len(rows))
            run = epoch.run(source, asked)
            exhausted[source] = len(run) < asked
            rows += run
        return rows

    def _draw(self, epoch: "_Epoch", exhausted: np.ndarray, size: int) -> int:
        chances = np.where(exhausted, 0.0, self._probabilities)
        if not chances.any():
            raise RecipeError(
                f"No source has rows left that are no duplicates within a step of {size} rows. "
                "Make the batch smaller, or allow duplicates."
            )
        return int(epoch.draws.choice(len(chances), p=chances / chances.sum()))


class _Epoch:
    """What is left of every source, and what the step at hand holds."""

    def __init__(self, sizes: Sequence[int], *, seed: tuple[int, int], keys: Keys | None) -> None:
        first = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self.draws = np.random.default_rng([*seed, 0])
        self._orders = [
            _endless_order(size, first=first[n], seed=(*seed, n + 1))
            for n, size in enumerate(sizes)
        ]
        self._put_aside: list[deque[_Keyed]] = [deque() for _ in sizes]
        self._keys = keys
        self.begin_step()

    def begin_step(self) -> None:
        self._queries: set[int] = set()
        self._positives: set[int] = set()

    def run(self, source: int, size: int) -> list[int]:
        """The next rows of a source; fewer when too many in a row are duplicates."""
        if self._keys is None:
            return [next(self._orders[source]) for _ in range(size)]
        waiting, self._put_aside[source] = self._put_aside[source], deque()
        run: list[int] = []
        for _ in range(LOOK_AHEAD + size):
            if len(run) == size:
                break
            row = waiting.popleft() if waiting else self._next(source)
            if self._admit(row):
                run.append(row.row)
            else:
                self._put_aside[source].append(row)
        self._put_aside[source] += waiting
        return run

    def _next(self, source: int) -> "_Keyed":
        assert self._keys is not None
        row = next(self._orders[source])
        return _Keyed(row, *self._keys(row))

    def _admit(self, row: "_Keyed") -> bool:
        if row.query in self._queries or row.positive in self._positives:
            return False
        self._queries.add(row.query)
        self._positives.add(row.positive)
        return True


class _Keyed(NamedTuple):
    row: int
    query: int
    positive: int


def _endless_order(size: int, *, first: int, seed: tuple[int, ...]) -> Iterator[int]:
    """Rows of a source in a random order, then in another, and so on."""
    generator = np.random.default_rng(seed)
    while True:
        yield from (generator.permutation(size) + first).tolist()
