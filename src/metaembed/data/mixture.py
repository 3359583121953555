"""Several sources as one sequence, each with the probability that it is drawn."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from metaembed.data.batches import InterleavedBatchSampler
from metaembed.data.examples import Example, Examples
from metaembed.data.settings import SourceSettings
from metaembed.data.sources import open_source
from metaembed.errors import RecipeError


class Mixture:
    """The examples of all sources, one source after the other.

    `InterleavedBatchSampler` says in which order they are trained on.
    """

    def __init__(self, sources: Sequence[Examples], *, weights: Sequence[float]) -> None:
        _check(sources)
        self.sources = tuple(sources)
        self.probabilities = tuple(weight / sum(weights) for weight in weights)
        self._ends = list(accumulate(map(len, sources)))
        self._batches: InterleavedBatchSampler | None = None

    @classmethod
    def open(
        cls, settings: Sequence[SourceSettings], *, seed: int = 0, cache_dir: Path | None = None
    ) -> "Mixture":
        """Open every source, each with a sample of its own where it is capped.

        Raises `RecipeError` for a source that cannot be opened or is empty, and for two of one
        name.
        """
        sources = [open_source(one, seed=seed, cache_dir=cache_dir) for one in settings]
        return cls(sources, weights=[one.weight for one in settings])

    def batches(
        self,
        *,
        batch_size: int,
        interleave: int,
        seed: int = 0,
        drop_last: bool = True,
        num_processes: int = 1,
        avoid_duplicates: bool = False,
    ) -> InterleavedBatchSampler:
        """The sampler of this mixture, which from then on follows its `set_epoch`."""
        self._batches = InterleavedBatchSampler(
            self.sizes,
            batch_size=batch_size,
            interleave=interleave,
            probabilities=self.probabilities,
            seed=seed,
            drop_last=drop_last,
            num_processes=num_processes,
            keys=self.keys if avoid_duplicates else None,
        )
        return self._batches

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler: accelerate reaches only the data set where it resumes with several
        processes."""
        if self._batches is not None:
            self._batches.set_epoch(epoch)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        source, row = self.locate(index)
        return self.sources[source][row]

    def locate(self, index: int) -> tuple[int, int]:
        """The number of the source that an example is of, and its number in there."""
        if not 0 <= index < len(self):
            raise IndexError(f"The mixture has {len(self):,} examples; {index} is none of them.")
        source = bisect_right(self._ends, index)
        return source, index - (self._ends[source - 1] if source else 0)

    def where(self, index: int) -> str:
        """Name the place that an example comes from."""
        source, row = self.locate(index)
        return self.sources[source].where(row)

    def keys(self, index: int) -> tuple[int, int]:
        """The keys of query and positive, by the paths of pictures in files; cheap to tell."""
        return self[index].keys(by_path=True)


def _check(sources: Sequence[Examples]) -> None:
    if not sources:
        raise RecipeError("There is no source of training data; give at least one.")
    names = [source.name for source in sources]
    for source in sources:
        if not len(source):
            raise RecipeError(f"Source {source.name!r} has no rows that can be used.")
        if names.count(source.name) > 1:
            raise RecipeError(f"Two sources are called {source.name!r}; give one another name.")
