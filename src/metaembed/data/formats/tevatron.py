"""Tevatron's form: queries with the ids of right and wrong candidates, and a corpus of those.

Used by Tevatron/colpali, wiki-ss-nq-new and others. A query's other positives are never its
negatives.
"""

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from metaembed.data.examples import Example, Side
from metaembed.data.formats.fields import Context, Pictures, Row, RowReader, text_field, without
from metaembed.data.rows import Rows, find_rows, is_local
from metaembed.errors import ItemError


def reader(context: Context) -> RowReader:
    corpus = Corpus(_open_corpus(context), context.pictures)
    limit = context.settings.num_negatives
    return partial(_read, corpus=corpus, pictures=context.pictures, limit=limit)


def _read(row: Row, *, corpus: "Corpus", pictures: Pictures, limit: int) -> Example:
    right = [_id(one) for one in row.get("positive_document_ids") or ()]
    wrong = [_id(one) for one in row.get("negative_document_ids") or ()]
    wrong = [one for one in wrong if one not in right][:limit]
    positive = corpus.side(right[0]) if right else Side()
    picture = pictures.find(row.get("query_image"), "query_image")
    return Example(
        query=Side.of(text_field(row, "query_text"), picture),
        positive=positive,
        negatives=without([corpus.side(one) for one in wrong], positive, limit),
    )


def _open_corpus(context: Context) -> Rows:
    settings = context.settings
    path, config = settings.corpus, None
    if path is None and is_local(settings.path) and Path(settings.path).is_dir():
        path, config = settings.path, "corpus"
    path = path or f"{settings.path}-corpus"
    plain = settings.model_copy(update={"path": path, "config": config, "split": None})
    return find_rows(plain, cache_dir=context.cache_dir).open("docid|text|title|image")


class Corpus:
    """Candidates found by id. Holds 16 bytes a candidate, not the ids themselves."""

    def __init__(self, rows: Rows, pictures: Pictures) -> None:
        self._rows, self._pictures = rows, pictures
        hashes = np.fromiter(map(_hash, _ids(rows)), np.int64, len(rows))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes: Int64[np.ndarray, " C"] = hashes[self._order]

    def side(self, id: str) -> Side:
        """The candidate of an id; raises `ItemError` when there is none."""
        start = int(np.searchsorted(self._hashes, _hash(id)))
        for place in range(start, len(self._hashes)):
            row = self._rows[int(self._order[place])]
            if _id(row["docid"]) == id:
                return self._side(row)
            if self._hashes[place] != self._hashes[start]:
                break
        raise ItemError(f"The corpus has no candidate {id!r}.")

    def _side(self, row: Row) -> Side:
        parts = (text_field(row, column) for column in ("title", "text"))
        text = " ".join(part for part in parts if part)
        return Side.of(text, self._pictures.find(row.get("image"), "image"))


def _ids(rows: Rows) -> Iterable[str]:
    return (_id(row["docid"]) for row in rows.scan("docid"))


def _id(value: Any) -> str:
    return str(value)


def _hash(id: str) -> int:
    digest = hashlib.blake2b(id.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
