"""The front of the index: what a caller does with a folder of vectors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from metaembed.budget import Budget
from metaembed.index import copying, hits, lookup, queries, upkeep, writer
from metaembed.index.arrays import VectorsLike
from metaembed.index.batches import RawBatch, extend, new_batch
from metaembed.index.cascade import Cascade
from metaembed.index.certified import Proof
from metaembed.index.copying import SketchChoice
from metaembed.index.disk import absolute
from metaembed.index.folder import create_folder
from metaembed.index.hits import Hit
from metaembed.index.manifest import IndexType, SketchType, new_manifest
from metaembed.index.planning import Choice
from metaembed.index.repair import Repair, repair
from metaembed.index.store import Store
from metaembed.index.upkeep import IndexStats


class Index:
    """A folder of embeddings that can be added to, filtered and searched at any budget.

    Any number of processes may read while one writes; a reader sees the state before a change or
    after it. Threads may share an instance; forked processes may not. Use it as a context manager
    or `close` it.
    """

    def __init__(self, store: Store):
        """Use `create` or `open`."""
        self._store = store
        self._manifest = store.manifest

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        dim: int,
        groups: Sequence[Budget | str],
        model: str = "",
        fingerprint: str = "",
        dtype: IndexType = "bfloat16",
        sketch: SketchType | None = None,
    ) -> "Index":
        """Create an empty index whose items have as many vectors as the last group's candidates.

        `model` and `fingerprint` say whose vectors it holds. `dtype` is how they are stored (see
        `metaembed.storage`); int4 is for the vectors that only the last group uses, beside int8.
        `sketch` is the type of a smaller copy for the first stages of a search. Raises
        `IndexFormatError` when `path` is a file or a folder with anything in it.
        """
        labels = {"model": model, "fingerprint": fingerprint}
        manifest = new_manifest(dim=dim, groups=groups, dtype=dtype, sketch=sketch, **labels)
        folder = absolute(path)
        create_folder(folder, manifest)
        return cls(Store(folder))

    @classmethod
    def open(cls, path: Path | str, *, fingerprint: str | None = None) -> "Index":
        """Open an index after checking the size of every file.

        Raises `IndexFormatError` when it is missing, damaged or of a newer format, and
        `IndexMismatchError` when `fingerprint` is given and another model's.
        """
        store = Store(absolute(path))
        if fingerprint is not None:
            store.require_fingerprint(fingerprint)
        return cls(store)

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Index({str(self.path)!r}, dim={self.dim}, limit='{self.limit}', dtype={self.dtype!r})"
        )

    @property
    def path(self) -> Path:
        """Absolute."""
        return self._store.path

    @property
    def dim(self) -> int:
        return self._manifest.dim

    @property
    def groups(self) -> tuple[Budget, ...]:
        return self._manifest.groups

    @property
    def limit(self) -> Budget:
        """The largest budget that can be searched, which is the last group."""
        return self._manifest.limit

    @property
    def num_vectors(self) -> int:
        """Vectors stored per item."""
        return self.limit.candidate

    @property
    def dtype(self) -> IndexType:
        return self._manifest.dtype

    @property
    def sketch(self) -> SketchType | None:
        return self._manifest.sketch

    @property
    def model(self) -> str:
        return self._manifest.model

    @property
    def fingerprint(self) -> str:
        return self._manifest.fingerprint

    def __len__(self) -> int:
        with self._store.reading():
            return self._store.catalog.num_items()

    def __contains__(self, id: object) -> bool:
        return lookup.has_item(self._store, id)

    def ids(self) -> list[str]:
        """The ids of all items, in insertion order."""
        with self._store.reading():
            return self._store.catalog.ids()

    def add(
        self,
        ids: Sequence[str],
        vectors: VectorsLike,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Append items with `vectors` (items, num_vectors, dim); durable when it returns.

        `texts` are what hybrid searches look for words in, and what snippets are made of.

        Each call is a commit, so add many items at a time where you have them; small segments are
        merged on the way (see `metaembed.index.merging`). Metadata comes back as JSON makes it:
        tuples as lists. Raises `IndexMismatchError` for an id that is there already or given
        twice, and for anything that does not fit the index.
        """
        batch = new_batch(self._store, ids, vectors, metadata, texts)
        writer.insert(self._store, batch.items, batch.blocks, replace=False)

    def upsert(
        self,
        ids: Sequence[str],
        vectors: VectorsLike,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """As `add`, but replace the items that are there; they move to the end of the order."""
        batch = new_batch(self._store, ids, vectors, metadata, texts)
        writer.insert(self._store, batch.items, batch.blocks, replace=True)

    def extend(self, batches: Iterable[RawBatch], *, replace: bool = False) -> int:
        """Append batches of (ids, vectors, metadata) and return how many items they had.

        For more than memory holds: they are collected into segments of about 256 MiB, each of
        them durable before the next is begun. `replace` as in `upsert`. When a batch is refused
        or the iterator raises, everything before it is kept and durable.
        """
        return extend(self._store, batches, replace=replace)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items and return how many there were; unknown ids are ignored.

        Their vectors stay on disk, unread, until their segment is merged or `compact`ed.
        """
        return writer.delete(self._store, ids)

    def compact(self) -> None:
        """Rewrite the live rows into one segment and delete everything else.

        Needs the space of the live rows a second time while it runs. Order and results stay.
        """
        writer.compact(self._store)

    def copy(
        self,
        path: Path | str,
        *,
        budget: Budget | str | None = None,
        dtype: IndexType | None = None,
        sketch: SketchChoice = "keep",
    ) -> "Index":
        """Write the live items as a new index at `path` and open it; needs no model.

        With `budget` larger groups are cut down to it, and with `dtype` or `sketch` vectors are
        stored in another type; None keeps the type of every plane, and what is kept is copied bit
        for bit. Checksums are compared first. Raises `IndexFormatError` when `path` is not free,
        or when somebody compacts this index meanwhile (additions do no harm); then there is
        nothing at `path`.
        """
        limit, folder = queries.budget_of(self._store, budget), absolute(path)
        return Index(copying.copy(self._store, folder, budget=limit, dtype=dtype, sketch=sketch))

    def merge(self, others: Sequence["Index"], *, replace: bool = False) -> int:
        """Append the items of other indexes, in order, and return how many there were.

        They must have the same dim, groups and fingerprint; another storage type is converted.
        Each of them is taken as a whole or not at all, and is durable before the next is begun.
        Raises `IndexMismatchError` for ids that are here already, unless `replace`.
        """
        return copying.merge(self._store, [other._store for other in others], replace=replace)

    @staticmethod
    def repair(path: Path | str) -> Repair:
        """Keep what is sound of an index that `open` or `verify` finds damaged.

        Segments with missing or damaged files are given up, with their items; so are items without
        a row or without readable metadata. Their files, and the catalog as it was, go to the folder
        `damaged` inside the index. Raises `IndexFormatError` when the manifest or the catalog
        itself cannot be read.
        """
        return repair(absolute(path))

    def get(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The metadata of items, in the order asked for."""
        return lookup.metadata_of(self._store, ids)

    def texts(self, ids: Sequence[str]) -> list[str | None]:
        """The texts of items, in the order asked for; None where one has none."""
        return lookup.texts_of(self._store, ids)

    def embeddings(self, ids: Sequence[str]) -> Float[np.ndarray, "N r dim"]:
        """The stored vectors of items in float32, in the order asked for."""
        return lookup.embeddings_of(self._store, ids)

    def search(
        self,
        vectors: VectorsLike,
        budget: Budget | str | None = None,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        *,
        cascade: Cascade | str | None = None,
        texts: Sequence[str] | None = None,
    ) -> list[list[Hit]]:
        """The `k` best items for each of `vectors` (queries, at least r_q, dim), best first.

        Scores the first r_q vectors of a query against the first r_c of every item that passes
        `filter` (see `metaembed.index.filters`); `budget` defaults to `limit` and may be any that
        fits it. Exact; equal scores come in insertion order. Fewer hits mean fewer items.

        With a `cascade` (see `metaembed.index.cascade`) only what its stages keep gets the score
        at `budget`: much faster for a large budget, and it can miss a hit. "auto" takes a generous
        one by a rule, and `choose_cascade` measures.

        With the `texts` of the queries the search is hybrid: what their words find among the items'
        texts is fused with what their vectors find, and the score is that of the fusion (see
        `metaembed.index.fusion`).
        """
        request = queries.new_request(self._store, vectors, budget, k, cascade)
        return hits.find(self._store, request, filter, texts)

    def search_certified(
        self,
        vectors: VectorsLike,
        budget: Budget | str | None = None,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
    ) -> list[tuple[list[Hit], Proof]]:
        """The hits of `search` for each query alone, found by way of the sketch; and what it took.

        The sketch is read in full, and of the planes only what its error bounds leave possible
        (see `metaembed.index.certified`). Needs a sketch in int8 or int4.
        """
        request = queries.new_request(self._store, vectors, budget, k)
        return hits.find_certified(self._store, request, filter)

    def default_cascade(self, budget: Budget | str | None = None, k: int = 10) -> Cascade | None:
        """What `cascade="auto"` stands for; None where an exact search is as good."""
        return queries.auto_cascade(self._store, queries.budget_of(self._store, budget), k)

    def choose_cascade(
        self,
        vectors: VectorsLike,
        budget: Budget | str | None = None,
        k: int = 10,
        *,
        recall: float = 0.99,
    ) -> Choice:
        """Find the fastest cascade that keeps `recall` of the exact top `k`, on this machine.

        Measured on up to 100 sample queries, which have to be like those to come: stored items in
        their place mislead. It takes a few seconds for 100,000 items. The recall is that of the
        sample, and what the cascade keeps has a margin over it.
        """
        request = queries.new_request(self._store, vectors, budget, k)
        return hits.find_cascade(self._store, request, recall)

    def stats(self) -> IndexStats:
        return upkeep.stats(self._store)

    def bytes_per_item(self, budget: Budget | str | None = None) -> int:
        """Bytes of vectors that a search at `budget` reads for each item; default: all."""
        return self._manifest.num_bytes(queries.budget_of(self._store, budget).candidate)

    def verify(self, *, progress: Callable[[int, int], None] = lambda *_: None) -> list[str]:
        """Read every byte and describe each problem in a line; an empty list means sound.

        `progress` is told how many bytes of vectors have been read, and of how many.
        """
        return upkeep.problems(self._store, progress)
