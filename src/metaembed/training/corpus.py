"""The corpus that every machine has: documentation of its Python packages, as sources."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from metaembed.data.examples import Example, Side
from metaembed.training.recipe import Recipe

logger = logging.getLogger(__name__)


class Pairs:
    """Examples in memory, which a mixture draws from as from any source."""

    def __init__(self, name: str, pairs: Sequence[tuple[str, str]]) -> None:
        self.name = name
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        query, positive = self._pairs[index]
        return Example(Side(text=query), Side(text=positive))

    def where(self, index: int) -> str:
        return f"{self.name}, pair {index + 1}"


def python_docs(recipe: Recipe, file: Path, *, batch_size: int) -> list[Pairs]:
    """One source a package, so that negatives come from the positive's own package.

    Packages of fewer than `batch_size` pairs are put together. What is found is kept in `file`
    for the next time.
    """
    from metaembed.data.pairs import read_pairs, training_pairs, with_hard_negatives, write_pairs

    if not file.exists():
        logger.info("Collecting training pairs from the installed packages' documentation")
        found = training_pairs(seed=recipe.seed, per_package=recipe.data.per_package)
        partial = file.with_suffix(".partial")
        write_pairs(partial, with_hard_negatives(found, seed=recipe.seed))
        partial.replace(file)
    by_package: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pair, _ in read_pairs(file):
        by_package[pair.package].append((pair.query, pair.candidate))
    small = [package for package, pairs in by_package.items() if len(pairs) < batch_size]
    rest = [pair for package in small for pair in by_package.pop(package)]
    if rest:
        by_package["other packages"] = rest
    return [Pairs(package, pairs) for package, pairs in by_package.items()]
