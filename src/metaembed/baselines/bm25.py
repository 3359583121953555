"""BM25, the lexical baseline that every learned retriever has to beat.

The Lucene form: `idf * tf / (tf + k1 * (1 - b + b * length / mean length))`, with
`idf = log(1 + (N - df + 1/2) / (df + 1/2))`, which is never negative.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their "  # noqa: SIM905
    "then there these they this to was will with".split()
)
"""The short English list that Lucene ships."""

_PART_BOUNDARY = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words(text: str) -> Iterator[str]:
    """Yield the lower-case words of a text, compound identifiers whole and in parts.

    >>> list(words("JSONEncoder.sort_keys"))
    ['jsonencoder', 'json', 'encoder', 'sort_keys', 'sort', 'keys']
    """
    for word in re.findall(r"\w+", text):
        yield word.lower()
        parts = [part for part in _PART_BOUNDARY.split(word) if part]
        if len(parts) > 1:
            yield from (part.lower() for part in parts)


class BM25:
    """An inverted index over candidate texts, held in memory."""

    def __init__(
        self,
        texts: Iterable[str],
        *,
        k1: float = 1.2,
        b: float = 0.75,
        without_stop_words: bool = False,
    ) -> None:
        self._ignored = STOP_WORDS if without_stop_words else frozenset[str]()
        counts = [self._count(text) for text in texts]
        self.num_candidates = len(counts)
        vocabulary = sorted(set(chain.from_iterable(counts)))
        self._row = {word: row for row, word in enumerate(vocabulary)}

        # One posting per (word, candidate), sorted by word: row w owns starts[w]:starts[w + 1].
        sizes = [len(count) for count in counts]
        rows = np.array([self._row[word] for count in counts for word in count], dtype=np.int64)
        order = np.argsort(rows, kind="stable")
        self._candidates = np.repeat(np.arange(len(counts)), sizes)[order]
        frequencies = np.array([n for count in counts for n in count.values()], dtype=np.float64)
        num_holders = np.bincount(rows, minlength=len(vocabulary))
        self._starts = np.concatenate([[0], np.cumsum(num_holders)])

        lengths = np.array([count.total() for count in counts], dtype=np.float64)
        relative = lengths / max(1.0, lengths.sum()) * len(counts)
        damping = (k1 * (1 - b + b * relative))[self._candidates]
        idf = np.log1p((len(counts) - num_holders + 0.5) / (num_holders + 0.5))
        frequencies = frequencies[order]
        self._weights = idf[rows[order]] * frequencies / (frequencies + damping)

    def scores(self, queries: Sequence[str]) -> Float[np.ndarray, "Q N"]:
        """Score every query against every candidate, in float32; a repeated word counts again."""
        scores = np.zeros((len(queries), self.num_candidates), dtype=np.float32)
        for line, query in zip(scores, queries, strict=True):
            for word, count in self._count(query).items():
                if (row := self._row.get(word)) is not None:
                    postings = slice(self._starts[row], self._starts[row + 1])
                    line[self._candidates[postings]] += count * self._weights[postings]
        return scores

    def _count(self, text: str) -> Counter[str]:
        return Counter(word for word in words(text) if word not in self._ignored)
