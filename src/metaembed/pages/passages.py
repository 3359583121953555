"""Cutting a text into overlapping passages that a model takes in whole."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from metaembed.errors import ItemError

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*+(?=\s)|[。！？]")
_SENTENCE_OR_LINE_END = re.compile(_SENTENCE_END.pattern + r"|\n")
# Where a passage ends, most wanted first. A line end is worth less than a sentence end: the lines
# of a PDF end anywhere.
_ENDS = (
    re.compile(r"\n(?=[ \t]*+\n)"),
    _SENTENCE_END,
    re.compile(r"(?=\n)"),
    re.compile(r"\S(?=\s)"),
)


class Passage(NamedTuple):
    """A stretch of a text without white space at its ends; offsets count characters."""

    text: str
    start: int
    stop: int


def split_passages(
    text: str,
    *,
    token_offsets: Callable[[str], Sequence[tuple[int, int]]],
    max_tokens: int,
    overlap: int,
) -> list[Passage]:
    """Cut a text into passages of at most `max_tokens` tokens; blank text has none.

    `token_offsets` gives the characters of each token of the whole text, without special tokens;
    it is called once. A text that fits is one passage. Otherwise each passage ends at a line,
    sentence or word if one ends in its last third, and the next begins about `overlap` tokens
    (at most half a passage) before that end, at a sentence or word. Together the passages hold
    every character that is not white space. Tokens that share characters (the bytes of an emoji)
    stay together, the one case in which a passage may have more than `max_tokens`.

    Raises `ItemError` when `max_tokens` is less than 1.
    """
    if max_tokens < 1:
        raise ItemError(
            f"A passage of at most {max_tokens} tokens holds no text; max_tokens must be at least "
            "1. The model's maximum length leaves no room beside its meta tokens."
        )
    if not text.strip():
        return []
    windows = _Windows(text, token_offsets(text), max_tokens, min(overlap, max_tokens // 2))
    passages: list[Passage] = []
    for start, stop in windows.spans():
        passage = _trimmed(text, start, stop)
        # White space may be all that a window adds to the one before.
        if passage.text and (not passages or passage.stop > passages[-1].stop):
            passages.append(passage)
    return passages


class _Windows:
    """Windows over tokens, in which tokens that share characters count as one piece.

    `starts` are the pieces' first characters; `totals[i]` counts the tokens before piece `i`.
    """

    def __init__(
        self, text: str, offsets: Sequence[tuple[int, int]], max_tokens: int, overlap: int
    ) -> None:
        self._text = text
        self._max_tokens = max_tokens
        self._overlap = overlap
        self._starts: list[int] = []
        sizes: list[int] = []
        reached = 0
        for start, stop in sorted(offsets):
            if start >= reached or not sizes:
                self._starts.append(start)
                sizes.append(0)
            sizes[-1] += 1
            reached = max(reached, stop, start + 1)  # a token may have no character of its own
        self._totals = list(accumulate(sizes, initial=0))

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield the characters of each window; both ends move forward from one to the next."""
        if self._totals[-1] <= self._max_tokens:
            yield 0, len(self._text)
            return
        first = last = 0
        while last < len(self._starts):
            last = self._end(first, after=last)
            start = self._starts[first] if first else 0
            yield start, self._starts[last] if last < len(self._starts) else len(self._text)
            first = self._next_start(first, last)

    def _end(self, first: int, *, after: int) -> int:
        """Return the piece before which a window ends that begins with the piece `first`."""
        before = self._totals[first]
        most = bisect_right(self._totals, before + self._max_tokens) - 1
        most = max(most, first + 1)
        if most >= len(self._starts):
            return len(self._starts)
        least = bisect_left(self._totals, before + (2 * self._max_tokens + 2) // 3)
        least = min(max(least, after + 1), most)
        # An end between the pieces before `least` and at `least` is one to stop at `least` for.
        low, high = self._starts[least - 1], self._starts[most]
        for pattern in _ENDS:
            found = -1
            for match in pattern.finditer(self._text, low, high + 1):
                found = match.end()
            if low < found <= high:
                return bisect_left(self._starts, found)
        return most

    def _next_start(self, first: int, last: int) -> int:
        """Return the piece that the next window begins with."""
        if last >= len(self._starts):
            return last
        total = self._totals[last]
        # It goes back by the overlap at most, and must reach past this window's end.
        furthest = max(
            first + 1,
            bisect_left(self._totals, total - self._overlap),
            bisect_left(self._totals, self._totals[last + 1] - self._max_tokens),
        )
        furthest = min(furthest, last)
        nearest = max(furthest, bisect_left(self._totals, total - self._overlap // 2))
        low, high = self._starts[furthest - 1], self._starts[nearest]
        for match in _SENTENCE_OR_LINE_END.finditer(self._text, low, high + 1):
            piece = bisect_left(self._starts, match.end())
            if furthest <= piece <= nearest:
                return piece
        pieces = range(furthest, nearest + 1)
        return next((piece for piece in pieces if self._begins_word(piece)), furthest)

    def _begins_word(self, piece: int) -> bool:
        start = self._starts[piece]
        return self._text[start - 1 : start].isspace() or self._text[start : start + 1].isspace()


def _trimmed(text: str, start: int, stop: int) -> Passage:
    part = text[start:stop]
    stop = start + len(part.rstrip())
    start += len(part) - len(part.lstrip())
    return Passage(text[start:stop], start, stop)
