"""The front of the index: what a caller does with a folder of vectors."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from metaembed.budget import Budget
from metaembed.errors import BudgetError, IndexFormatError, IndexMismatchError
from metaembed.index import certified, copying
from metaembed.index.arrays import VectorsLike, as_vectors
from metaembed.index.batches import Batch, RawBatch, extend, new_batch
from metaembed.index.cascade import Cascade
from metaembed.index.certified import Proof
from metaembed.index.copying import SketchChoice
from metaembed.index.disk import folder_size
from metaembed.index.filters import parse_filter
from metaembed.index.manifest import IndexType, SketchType, new_manifest
from metaembed.index.planning import Choice, choose, default_cascade
from metaembed.index.reading import read_vectors
from metaembed.index.records import decode_metadata, id_list, is_id
from metaembed.index.repair import Repair, repair
from metaembed.index.search import Request, hybrid, search
from metaembed.index.snapshot import Snapshot
from metaembed.index.store import Store, num_rows
from metaembed.kernels import Best

OPTIMISTIC_SEARCHES = 4
"""Attempts of a search that let other processes commit meanwhile, before one that holds them."""

Found = TypeVar("Found")


class Hit(NamedTuple):
    id: str
    score: float
    """MaxSim sum; comparable only inside one budget."""
    metadata: dict[str, Any]


class IndexStats(NamedTuple):
    items: int
    deleted: int
    """Rows on disk that `compact` would drop."""
    segments: int
    bytes_on_disk: int
    bytes_per_item: int
    """Of all the vectors of one item."""


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
        manifest = new_manifest(
            dim=dim,
            groups=groups,
            dtype=dtype,
            sketch=sketch,
            model=model,
            fingerprint=fingerprint,
        )
        return cls(Store.create(Path(path).absolute(), manifest))

    @classmethod
    def open(cls, path: Path | str, *, fingerprint: str | None = None) -> "Index":
        """Open an index after checking the size of every file.

        Raises `IndexFormatError` when it is missing, damaged or of a newer format, and
        `IndexMismatchError` when `fingerprint` is given and another model's.
        """
        index = cls(Store(Path(path).absolute()))
        if fingerprint is not None and fingerprint != index.fingerprint:
            index.close()
            raise IndexMismatchError(
                f"Index {index.path.name!r} was built with model {index.model!r} (fingerprint "
                f"{index.fingerprint!r}), not with the one of fingerprint {fingerprint!r}. "
                "Open it with that model or rebuild."
            )
        return index

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
        with self._store.reading():
            return is_id(id) and bool(self._store.catalog.sequences_of([str(id)])[0])

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

        Each call writes a segment, so add many items at a time, or `compact` later. Metadata comes
        back as JSON makes it: tuples as lists. Raises `IndexMismatchError` for an id that is
        there already or given twice, and for anything that does not fit the index.
        """
        self._insert(new_batch(self._store, ids, vectors, metadata, texts), replace=False)

    def upsert(
        self,
        ids: Sequence[str],
        vectors: VectorsLike,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """As `add`, but replace the items that are there; they move to the end of the order."""
        self._insert(new_batch(self._store, ids, vectors, metadata, texts), replace=True)

    def extend(self, batches: Iterable[RawBatch], *, replace: bool = False) -> int:
        """Append batches of (ids, vectors, metadata) and return how many items they had.

        For more than memory holds: they are collected into segments of about 256 MiB, each of
        them durable before the next is begun. `replace` as in `upsert`. When a batch is refused
        or the iterator raises, everything before it is kept and durable.
        """
        return extend(self._store, batches, replace=replace)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items and return how many there were; unknown ids are ignored.

        Their vectors stay on disk, unread, until `compact`.
        """
        known = {id for id in id_list(ids) if is_id(id)}
        with self._store.writing() as catalog:
            return catalog.remove_items(known)

    def compact(self) -> None:
        """Rewrite the live rows into one segment and delete everything else.

        Needs the space of the live rows a second time while it runs. Order and results stay.
        """
        self._store.compact()

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
        or when somebody compacts this index meanwhile; then there is nothing at `path`.
        """
        store = copying.copy(
            self._store,
            Path(path).absolute(),
            budget=self._budget(budget),
            dtype=dtype,
            sketch=sketch,
        )
        return Index(store)

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
        return repair(Path(path).absolute())

    def get(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The metadata of items, in the order asked for."""
        wanted = id_list(ids)
        with self._store.reading():
            found = self._store.catalog.metadata_of({id for id in wanted if is_id(id)})
        self._require_known(wanted, found)
        return [decode_metadata(found[id]) for id in wanted]

    def texts(self, ids: Sequence[str]) -> list[str | None]:
        """The texts of items, in the order asked for; None where one has none."""
        wanted, store = id_list(ids), self._store
        with store.reading():
            found, sequences = store.catalog.sequences_of({id for id in wanted if is_id(id)})
            texts = store.catalog.texts().text_of(sequences.tolist())
        self._require_known(wanted, found)
        place = dict(zip(found, sequences.tolist(), strict=True))
        return [texts.get(place[id]) for id in wanted]

    def embeddings(self, ids: Sequence[str]) -> Float[np.ndarray, "N r dim"]:
        """The stored vectors of items in float32, in the order asked for."""
        wanted, store = id_list(ids), self._store
        with store.reading():  # throughout, so that no segment is compacted away
            found, sequences = store.catalog.sequences_of({id for id in wanted if is_id(id)})
            self._require_known(wanted, found)
            place = {id: number for number, id in enumerate(found)}
            asked = sequences[[place[id] for id in wanted]]
            vectors = np.empty((len(wanted), self.num_vectors, self.dim), np.float32)
            for entry, numbers, rows in store.snapshot().locate(asked):
                vectors[numbers] = read_vectors(store.segments, entry.segment, rows)
            return vectors

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
        spent = self._budget(budget)
        if cascade == "auto":
            cascade = self.default_cascade(spent, k)
        cascade = None if cascade is None else self._cascade(cascade)
        stages = cascade.stages if cascade else ()
        queries = self._queries(vectors, [spent, *(stage.budget for stage in stages)])
        self._require_k(k)
        if stages and stages[-1].keep < k:
            raise BudgetError(
                f"The last stage of the cascade keeps {stages[-1].keep} items and {k} hits "
                "are asked for. Keep more."
            )
        if texts is not None and (isinstance(texts, str) or len(texts) != len(queries)):
            raise IndexMismatchError(
                f"texts must be a list of {len(queries)} strings, a query's each."
            )
        request = Request(queries, spent, k, cascade)

        def found(snapshot: Snapshot) -> list[list[Hit]]:
            if texts is not None:
                is_filtered = filter is not None
                ranked = hybrid(self._store, snapshot, request, texts, is_filtered=is_filtered)
                return self._items_of(ranked)
            best = search(self._store, snapshot, request)
            return self._hits(best, snapshot)

        return self._consistently(filter, found)

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
        spent = self._budget(budget)
        queries = self._queries(vectors, [spent])
        self._require_k(k)
        if self._manifest.sketch not in ("int8", "int4"):
            raise IndexMismatchError(
                f"A certified search needs a sketch in int8 or int4, and index {self.path.name!r} "
                f"has {self._manifest.sketch or 'none'}. Copy the index with one, or search it."
            )

        def found(snapshot: Snapshot) -> list[tuple[list[Hit], Proof]]:
            results = certified.search(self._store, snapshot, queries, budget=spent, k=k)
            return [(self._hits(_row(best), snapshot)[0], proof) for best, proof in results]

        return self._consistently(filter, found)

    def default_cascade(self, budget: Budget | str | None = None, k: int = 10) -> Cascade | None:
        """What `cascade="auto"` stands for; None where an exact search is as good."""
        widths = [plane.stop for plane in self._store.segments.layout]
        return default_cascade(self._budget(budget), k, len(self), widths)

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
        spent = self._budget(budget)
        if not 0 < recall < 1:
            raise IndexMismatchError(f"recall is {recall!r}; it lies between 0 and 1.")
        self._require_k(k)
        with self._store.reading():
            snapshot = self._store.snapshot()
        queries = self._queries(vectors, [spent])
        if not len(snapshot) or not len(queries):
            return Choice(None, 1.0, 0.0, 0.0)
        return choose(self._store, snapshot, queries, budget=spent, k=k, recall=recall)

    def stats(self) -> IndexStats:
        with self._store.reading():
            items = self._store.catalog.num_items()
            segments = self._store.catalog.segments()
        return IndexStats(
            items=items,
            deleted=num_rows(segments.values()) - items,
            segments=len(segments),
            bytes_on_disk=folder_size(self.path),
            bytes_per_item=self.bytes_per_item(),
        )

    def bytes_per_item(self, budget: Budget | str | None = None) -> int:
        """Bytes of vectors that a search at `budget` reads for each item; default: all."""
        return self._manifest.num_bytes(self._budget(budget).candidate)

    def verify(self, *, progress: Callable[[int, int], None] = lambda *_: None) -> list[str]:
        """Read every byte and describe each problem in a line; an empty list means sound.

        `progress` is told how many bytes of vectors have been read, and of how many.
        """
        return self._store.problems(progress)

    def _insert(self, batch: Batch, *, replace: bool) -> None:
        self._store.insert(batch.items, batch.blocks, replace=replace)

    def _consistently(
        self, filter: Mapping[str, Any] | None, found: Callable[[Snapshot], Found]
    ) -> Found:
        """Search one state of the index, and again when it has changed under the search."""
        tree = None if filter is None else parse_filter(filter)
        for _ in range(OPTIMISTIC_SEARCHES):
            snapshot = self._store.snapshot(tree)
            try:
                return found(snapshot)
            except IndexFormatError:
                # A segment or a hit is gone. That is fine if somebody has just removed it.
                if not self._store.is_outdated(snapshot):
                    raise
        with self._store.reading():
            return found(self._store.snapshot(tree))

    def _hits(self, best: Best, snapshot: Snapshot) -> list[list[Hit]]:
        sequences = snapshot.sequences_at(best.positions)  # (Q, k)
        return self._items_of(
            [
                list(zip(some, scores, strict=True))
                for some, scores in zip(sequences.tolist(), best.scores.tolist(), strict=True)
            ]
        )

    def _items_of(self, ranked: list[list[tuple[int, float]]]) -> list[list[Hit]]:
        """Look up what (sequence, score) of each query are."""
        wanted = {sequence for some in ranked for sequence, _ in some}
        with self._store.reading():
            items = self._store.catalog.items(wanted)
        if len(items) != len(wanted):
            raise IndexFormatError(f"Items of index {self.path.name!r} are gone. Search again.")
        return [
            [Hit(items[one].id, score, decode_metadata(items[one].metadata)) for one, score in some]
            for some in ranked
        ]

    def _budget(self, budget: Budget | str | None) -> Budget:
        if budget is None:
            return self.limit
        parsed = Budget.parse(budget)
        parsed.require_fits(self.limit, of=f"index {self.path.name!r}")
        return parsed

    def _cascade(self, cascade: Cascade | str) -> Cascade:
        parsed = Cascade.parse(cascade)
        has_sketch = self._manifest.sketch is not None
        parsed.require_fits(self.limit, has_sketch=has_sketch, of=f"index {self.path.name!r}")
        return parsed

    def _queries(
        self, vectors: VectorsLike, budgets: Sequence[Budget]
    ) -> Float[np.ndarray, "Q r dim"]:
        queries = as_vectors(vectors, dim=self.dim, dtype="float32", side="query")
        budget = max(budgets, key=lambda one: one.query)
        if queries.shape[1] < budget.query:
            raise BudgetError(
                f"Budget {budget} needs {budget.query} vectors per query and these queries have "
                f"{queries.shape[1]}. Encode more, or ask for a smaller budget."
            )
        return queries[:, : budget.query].astype(np.float32, order="C")

    def _require_k(self, k: int) -> None:
        if not isinstance(k, int) or k < 1:
            raise IndexMismatchError(f"k is {k!r}; ask for at least 1 hit.")

    def _require_known(self, wanted: Sequence[str], found: Collection[str]) -> None:
        found = set(found)
        unknown = [id for id in wanted if not is_id(id) or id not in found]
        if unknown:
            raise IndexMismatchError(
                f"Index {self.path.name!r} has no item {unknown[0]!r} "
                f"({len(unknown)} of these {len(wanted)} ids are unknown)."
            )


def _row(best: Best) -> Best:
    """One query's as that of several."""
    return Best(best.scores[None], best.positions[None])
