"""The front door: a folder's documents, the model that reads them and the index that holds them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from metaembed.budget import Budget
from metaembed.errors import IndexMismatchError, ItemError
from metaembed.index import Hit as IndexHit
from metaembed.index import Index
from metaembed.index.cascade import Cascade
from metaembed.index.manifest import IndexType, SketchType
from metaembed.items import Item
from metaembed.model import MetaEmbed
from metaembed.models import load_model
from metaembed.snippets import snippet

QUERY_BATCH = 32

PASSAGES_A_PAGE = 4
"""How many passages a search looks at for each page that is asked for, where it has to say."""


class PageHit(NamedTuple):
    """One page, picture or section, best first; `score` is comparable inside one budget only."""

    id: str
    score: float
    source: str
    page: int | None
    place: str
    title: str
    snippet: str


class Results(NamedTuple):
    """The hits of one query and where its time went."""

    hits: list[PageHit]
    budget: Budget
    encode_ms: float
    score_ms: float
    cascade: Cascade | None = None
    hybrid: bool = False


class Library:
    """A model and an index opened together.

    Everything that a folder holds lies in the index as passages the model can read; hits are the
    pages, pictures and sections that the passages come from.
    """

    def __init__(self, index: Index, model: MetaEmbed) -> None:
        self.index = index
        self.model = model

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        model: MetaEmbed,
        model_name: str,
        dtype: IndexType = "bfloat16",
        sketch: SketchType | None = None,
    ) -> Self:
        """Make an empty index for a model at its largest budget; see `Index.create`."""
        index = Index.create(
            path,
            dim=model.get_embedding_dimension(),
            groups=model.groups,
            model=model_name,
            fingerprint=model.fingerprint,
            dtype=dtype,
            sketch=sketch,
        )
        return cls(index, model)

    @classmethod
    def open(cls, path: Path, *, model_name: str | None = None) -> Self:
        """Open an index with the model that it was built with, or with `model_name`.

        Raises `IndexMismatchError` when that model's vectors are not the index's.
        """
        index = Index.open(path)
        model = load_model(model_name or index.model)
        if model.fingerprint != index.fingerprint:
            raise IndexMismatchError(
                f"Index {str(path)!r} was built with another model than "
                f"{model_name or index.model!r} (it says {index.model!r}, fingerprint "
                f"{index.fingerprint}); search it with that model or build it again."
            )
        return cls(index, model)

    def search(
        self,
        query: Item,
        *,
        budget: Budget | str | None = None,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        cascade: Cascade | str | None = None,
        hybrid: bool = False,
    ) -> Results:
        """Find the `k` pages that match an item best; see `search_many`."""
        (results,) = self.search_many(
            [query], budget=budget, k=k, filter=filter, cascade=cascade, hybrid=hybrid
        )
        return results

    def search_many(
        self,
        queries: Sequence[Item],
        *,
        budget: Budget | str | None = None,
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        cascade: Cascade | str | None = None,
        hybrid: bool = False,
    ) -> Iterator[Results]:
        """Answer queries in their order, encoded in batches.

        A `cascade` (see `metaembed.index.cascade`) spends `budget` on what its stages keep only;
        they keep passages, of which a page may have several. "auto" takes the index's default.
        A `hybrid` search counts the words of the query as well, and scores are of the fusion.
        """
        budget = self.index.limit if budget is None else Budget.parse(budget)
        budget.require_fits(self.index.limit, of=f"index {self.index.path.name!r}")
        if cascade == "auto":
            cascade = self.index.default_cascade(budget, PASSAGES_A_PAGE * k)
        cascade = None if cascade is None else self._cascade(cascade)
        asked = [budget, *(stage.budget for stage in cascade.stages)] if cascade else [budget]
        encoded = budget._replace(query=max(one.query for one in asked))
        for start in range(0, len(queries), QUERY_BATCH):
            batch = queries[start : start + QUERY_BATCH]
            started = time.perf_counter()
            vectors = self.model.encode_query(batch, budget=encoded, convert_to_tensor=True)
            encode_ms = 1000 * (time.perf_counter() - started) / len(batch)
            for query, embedding in zip(batch, vectors, strict=True):
                started = time.perf_counter()
                search = partial(
                    self.index.search,
                    embedding.unsqueeze(0),
                    budget,
                    filter=filter,
                    cascade=cascade,
                    texts=[query.text or ""] if hybrid else None,
                )
                found = _page_hits(search, k, most=cascade.stages[-1].keep if cascade else None)
                score_ms = 1000 * (time.perf_counter() - started)
                yield Results(
                    self._with_snippets(found, query.text or ""),
                    budget,
                    encode_ms,
                    score_ms,
                    cascade,
                    hybrid,
                )

    def _with_snippets(self, hits: Sequence[IndexHit], query: str) -> list[PageHit]:
        texts = self.index.texts([hit.id for hit in hits])
        return [_page_hit(hit, text, query) for hit, text in zip(hits, texts, strict=True)]

    def _cascade(self, cascade: Cascade | str) -> Cascade:
        """Read a cascade that the index can serve, before anything is encoded."""
        parsed, index = Cascade.parse(cascade), self.index
        has_sketch, of = index.sketch is not None, f"index {index.path.name!r}"
        parsed.require_fits(index.limit, has_sketch=has_sketch, of=of)
        return parsed


def check_length(model: MetaEmbed, query: Item) -> None:
    """Raise `ItemError` for a query that the model would not read to its end."""
    count, limit = len(model[0].token_offsets(query.prompt() or "")), model[0].text_length
    if count > limit:
        raise ItemError(
            f"The query has {count:,} tokens; the model reads at most {limit:,}. Shorten it, or "
            "put the text in a folder and index that."
        )


def fitting(model: MetaEmbed, text: str) -> str:
    """Cut a text to what the model reads of a query."""
    offsets, room = model[0].token_offsets(text), model[0].text_length
    return text if len(offsets) <= room else text[: offsets[room - 1][1]]


def _page_hits(
    search: Callable[..., list[list[IndexHit]]], k: int, *, most: int | None
) -> list[IndexHit]:
    """The best passage of each of the `k` best pages; a cascade leaves `most` passages."""
    asked = 2 * k
    while True:
        if most is not None:
            asked = max(k, min(asked, most))
        (passages,) = search(k=asked)
        best: dict[str, IndexHit] = {}
        for hit in passages:
            best.setdefault(hit.metadata["group"], hit)
        if len(best) >= k or len(passages) < asked or asked == most:
            return list(best.values())[:k]
        asked *= 4


def _page_hit(hit: IndexHit, text: str | None, query: str) -> PageHit:
    metadata = hit.metadata
    if text is None:  # before format 2 the text was in the metadata
        text = metadata.get("text", "")
    return PageHit(
        id=metadata["group"],
        score=hit.score,
        source=metadata["source"],
        page=metadata["page"],
        place=metadata["place"],
        title=metadata["title"],
        snippet=snippet(text, query),
    )
