"""The words of the items: their texts in SQLite's full-text index, ranked by BM25.

A table `texts` beside the others of the catalog, made when the first text is added; its rowid is
the item's sequence. It refuses to know what an item is, and queries are never FTS5 syntax here:
all that is read from them is words.
"""

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index.database import Database
from metaembed.index.disk import damaged
from metaembed.index.fulltext import SCHEMA, remake, wordlist_problem
from metaembed.index.records import is_plain_text

MAX_QUERY_LENGTH = 4096
"""Characters of a query that are read."""
MAX_QUERY_WORDS = 64
"""Distinct words of a query that count; each costs a pass over the rows that have it."""
ENOUGH_ROWS = 2000
"""Rows worth scoring, at one or two microseconds each. Frequent words bring no more of them: on
100,000 passages that is six times as fast, keeps 96 % of the best ten, and finds known items as
often."""
NARROW = 5
"""Of up to so many times enough rows, a filter's, all are scored: rare words have few of them."""

_BREAK = "\x1f"
"""Stands between characters of scripts that are written without spaces, and in no other place."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED += "\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, and as in Lucene's bigrams kana, Han and Hangul."""
_UNSPACED_RUN = re.compile(f"([{_UNSPACED}]+)")
_GAP = re.compile(f"(?<=[{_UNSPACED}])(?=\\S)|(?<=\\S)(?=[{_UNSPACED}])")


class Ranking(NamedTuple):
    """Items that share a word with a query, best first; equal scores in insertion order."""

    sequences: Int[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]
    """BM25 (k1 1.2, b 0.75), higher is better; comparable only inside one ranking."""


class Texts:
    """The table `texts` of an open catalog; call it inside `reading()` or `writing()`.

    Raises `IndexFormatError` where Python's SQLite was built without FTS5.
    """

    def __init__(self, database: Database, *, name: str):
        self._database = database
        self._name = name

    def exist(self) -> bool:
        """Whether any text was ever added."""
        found = self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'texts'")
        return found.fetchone() is not None

    def add(self, texts: Iterable[tuple[int, str]]) -> None:
        """Add the texts of items by sequence; a sequence must be new.

        Raises `IndexMismatchError` for a text that SQLite cannot hold.
        """
        rows = [(int(sequence), _with_breaks(text)) for sequence, text in texts]
        if rows:  # an index of pictures needs no FTS5
            with self._explained():
                self._database.execute(SCHEMA)
                self._database.execute_many("INSERT INTO texts (rowid, text) VALUES (?, ?)", rows)

    def remove_where(self, chosen: str, *parameters: str) -> None:
        """Forget the texts of the sequences that some SQL selects."""
        if self.exist():
            with self._explained():
                self._database.execute(f"DELETE FROM texts WHERE rowid IN ({chosen})", *parameters)

    def remove(self, sequences: Sequence[int]) -> None:
        """Forget the texts of items; those that have none are ignored."""
        if self.exist():
            with self._explained():
                self._database.execute(
                    "DELETE FROM texts WHERE rowid IN (SELECT value FROM json_each(?))",
                    _json(sequences),
                )

    def optimize(self) -> None:
        """Merge what many additions left in pieces; rewrites the words, not the texts."""
        if self.exist():
            with self._explained():
                self._database.execute("INSERT INTO texts (texts) VALUES ('optimize')")

    def sequences(self) -> Int[np.ndarray, " n"]:
        """Of all items that have a text, ascending."""
        if not self.exist():
            return np.empty(0, dtype=np.int64)
        found = self._database.execute("SELECT id FROM texts_docsize ORDER BY id")
        return np.fromiter((sequence for (sequence,) in found), dtype=np.int64)

    def problem(self) -> str | None:
        """What is wrong with what full-text search knows; reads all of it."""
        if not self.exist():
            return None
        with self._explained():
            return wordlist_problem(self._database)

    def remake(self) -> int:
        """Teach full-text search anew; returns how many texts cannot be read, and are lost."""
        with self._explained():
            return remake(self._database)

    def text_of(self, sequences: Sequence[int]) -> dict[int, str]:
        """The texts of those items that have one."""
        if not self.exist():
            return {}
        with self._explained():
            found = self._database.execute(
                "SELECT rowid, text FROM texts WHERE rowid IN (SELECT value FROM json_each(?))",
                _json(sequences),
            ).fetchall()
        return {sequence: self._without_breaks(text) for sequence, text in found}

    def rank(
        self, query: str, *, limit: int, allowed: Int[np.ndarray, " n"] | None = None
    ) -> Ranking:
        """The `limit` best of the items, or of those `allowed`, that share a word with `query`.

        Where a query's rarer words are in `ENOUGH_ROWS` items, an item that has only more
        frequent ones is passed over. All words count in the score of the others.
        """
        words = query_words(query)
        if not words or not self.exist():
            return _as_ranking([])
        with self._explained():
            rows = self._worth_scoring(words, enough=max(limit, ENOUGH_ROWS), allowed=allowed)
            # `+` keeps the planner from going through these rows one by one.
            found = self._database.execute(
                "SELECT rowid, -bm25(texts) AS score FROM texts WHERE texts MATCH ? "
                "AND +rowid IN (SELECT value FROM json_each(?)) "
                "ORDER BY score DESC, rowid LIMIT ?",
                " OR ".join(words),
                _json(rows),
                limit,
            ).fetchall()
        return _as_ranking(found)

    def _worth_scoring(
        self, words: Sequence[str], *, enough: int, allowed: Int[np.ndarray, " n"] | None
    ) -> Int[np.ndarray, " n"]:
        """Choose the rows of the rarest words, of as many words as it takes to have enough."""
        if allowed is not None and len(allowed) <= NARROW * enough:
            return allowed
        rows = np.empty(0, dtype=np.int64)
        for word in self._rarest_first(words, enough):
            new = self._rows_with(word)
            if allowed is not None:
                new = new[np.isin(new, allowed)]
            rows = np.union1d(rows, new)
            if len(rows) >= enough:
                break
        return rows

    def _rarest_first(self, words: Sequence[str], enough: int) -> Iterator[str]:
        """Yield words by the number of rows that have them; counts further only if asked for."""
        counts = {word: self._num_rows_with(word, at_most=enough) for word in words}
        yield from sorted((w for w in words if counts[w] < enough), key=counts.__getitem__)
        frequent = [word for word in words if counts[word] >= enough]
        yield from sorted(frequent, key=lambda word: self._num_rows_with(word, at_most=-1))

    def _num_rows_with(self, word: str, *, at_most: int) -> int:
        found = self._database.execute(
            "SELECT count(*) FROM (SELECT 1 FROM texts WHERE texts MATCH ? LIMIT ?)", word, at_most
        )
        return int(found.fetchone()[0])

    def _rows_with(self, word: str) -> Int[np.ndarray, " n"]:
        found = self._database.execute("SELECT rowid FROM texts WHERE texts MATCH ?", word)
        return np.fromiter((row for (row,) in found), dtype=np.int64)

    def _without_breaks(self, text: object) -> str:
        if not isinstance(text, str):
            raise damaged(self._name, "a text is not a text")
        return text.replace(_BREAK, "")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "no such module" not in str(error):
                raise
            raise IndexFormatError(
                f"The texts of index {self._name!r} need SQLite with FTS5, and this Python's "
                f"SQLite {sqlite3.sqlite_version} has none. Install a Python whose SQLite has it."
            ) from None


def query_words(query: str) -> list[str]:
    """Turn what somebody typed into FTS5 phrases of a word each; a repeated word counts once.

    Scripts without spaces give pairs of neighbouring characters.

    >>> query_words('the NOT-so "Simple" (café*) 東京都')
    ['"the"', '"NOT"', '"so"', '"Simple"', '"café"', '"東 京"', '"京 都"']
    """
    kept = "".join(c if _is_of_words(c) else " " for c in query[:MAX_QUERY_LENGTH])
    distinct: dict[str, str] = {}
    for word in kept.split():
        for phrase in _phrases(word):
            distinct.setdefault(phrase.lower(), f'"{phrase}"')
    return list(distinct.values())[:MAX_QUERY_WORDS]


def _is_of_words(character: str) -> bool:
    """Say what the tokenizer's categories say; quotes and NUL are not among them."""
    category = unicodedata.category(character)
    return category[0] in "LNM" or category == "Co"


def _phrases(word: str) -> Iterator[str]:
    for place, run in enumerate(_UNSPACED_RUN.split(word)):  # every second one is unspaced
        if place % 2 == 1 and len(run) > 1:
            yield from map(" ".join, pairwise(run))
        elif run:
            yield run


def _with_breaks(text: str) -> str:
    if not is_plain_text(text):
        raise IndexMismatchError(
            "The text of an item has NUL or half a surrogate pair. Remove these characters."
        )
    text = text.replace(_BREAK, " ")
    return _GAP.sub(_BREAK, text) if _UNSPACED_RUN.search(text) else text


def _json(sequences: Iterable[int]) -> str:
    return json.dumps([int(sequence) for sequence in sequences])


def _as_ranking(found: Sequence[tuple[int, float]]) -> Ranking:
    sequences = np.array([sequence for sequence, _ in found], dtype=np.int64)
    return Ranking(sequences, np.array([score for _, score in found], dtype=np.float64))
