"""Our own searches, as the benchmark calls them: the bare kernel, and `Index.search`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from corpus import Corpus
from synthetic import Planted

from metaembed.budget import PAPER_GROUPS, Budget
from metaembed.index import Hit, Index
from metaembed.kernels import Best, Candidates, Part
from metaembed.storage import CODES, StorageType, Stored

ADD_NUMBERS = 2**27
"""Numbers in one call of `Index.add`: 512 MiB of float32."""
PAGES = 1000
"""Items take turns in having page 0 to 999, by which the filters choose."""
FILTERS: dict[str, dict[str, Any]] = {
    "99 %": {"page": {"gte": 10}},
    "0.1 %": {"page": 7},
}


def filtered_rows(name: str | None, num_items: int) -> np.ndarray | None:
    """The positions of the items that pass a filter of `FILTERS`; None: all pass."""
    if name is None:
        return None
    pages = np.arange(num_items) % PAGES
    return np.flatnonzero(pages >= 10 if name == "99 %" else pages == 7)


class Kernel:
    """The bare kernel, over arrays in memory or mapped from files."""

    def __init__(self, parts: list[Part], budget: Budget, rows: np.ndarray | None) -> None:
        self._candidates, self._rows = Candidates(parts, r_c=budget.candidate), rows

    def search(self, queries: np.ndarray, k: int) -> Best:
        return self._candidates.top_k(queries, k)

    def read(self, found: Best) -> Best:
        """With positions among all items, as everybody else counts."""
        if self._rows is None:
            return found
        return Best(found.scores, self._rows[found.positions])


class Public:
    """`Index.search` with ids, metadata and perhaps a filter."""

    def __init__(self, index: Index, budget: Budget, filter: Mapping[str, Any] | None) -> None:
        self._index, self._budget, self._filter = index, budget, filter

    def search(self, queries: np.ndarray, k: int) -> list[list[Hit]]:
        return self._index.search(queries, budget=self._budget, k=k, filter=self._filter)

    def read(self, found: list[list[Hit]]) -> Best:
        scores = [[hit.score for hit in hits] for hits in found]
        positions = [[int(hit.id.removeprefix("item-")) for hit in hits] for hits in found]
        return Best(np.array(scores, np.float32), np.array(positions))


def memory_kernel(corpus: Corpus, dtype: StorageType, rows: np.ndarray | None) -> Kernel:
    return Kernel([Part(corpus.planes[dtype], rows)], corpus.budget, rows)


def build_index(path: Path, source: Planted, dtype: StorageType, *, compact: bool = True) -> Index:
    """Write the planted items with ids and metadata; as one segment, if `compact`."""
    groups = [group for group in PAPER_GROUPS if group.candidate <= source.num_vectors]
    index = Index.create(path, dim=source.dim, groups=groups, dtype=dtype)
    waiting: list[np.ndarray] = []
    num_added = 0
    for start, block in source.blocks():
        waiting.append(block)
        done = start + len(block) == source.num_items
        if done or sum(array.size for array in waiting) >= ADD_NUMBERS:
            vectors = np.concatenate(waiting)
            waiting.clear()
            numbers = range(num_added, num_added + len(vectors))
            metadata = [{"title": f"Item {n}", "page": n % PAGES} for n in numbers]
            index.add([f"item-{n}" for n in numbers], vectors, metadata)
            num_added += len(vectors)
    if compact:
        index.compact()
    return index


def file_kernel(path: Path, budget: Budget, dim: int, dtype: StorageType) -> Kernel:
    """The bare kernel over the planes of an index, mapped from its files."""
    parts = []
    for segment in sorted((path / "segments").iterdir(), key=lambda folder: int(folder.name)):
        files = sorted(segment.glob("plane-*.npy"), key=lambda file: int(file.stem.split("-")[1]))
        parts.append(Part(tuple(_mapped(file, dim, dtype) for file in files), None))
    return Kernel(parts, budget, None)


def _mapped(file: Path, dim: int, dtype: StorageType) -> Stored:
    scales = file.with_name(file.name.replace("plane", "scale", 1))
    codes = np.load(file, mmap_mode="r").view(CODES[dtype])
    return Stored(dtype, dim, codes, np.load(scales, mmap_mode="r") if scales.exists() else None)
