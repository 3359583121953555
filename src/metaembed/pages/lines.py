"""Cutting lines of text into pages: sections under headings, then blocks of paragraphs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from metaembed.pages.page import Page

MAX_BLOCK = 1_500
"""Characters of a page of text: some 300 words, so that a hit says where in a long file."""
_MAX_HEADING = 120


class Heading(NamedTuple):
    """A heading on the lines `start` up to `body`, counted from 0; level 1 is the outermost."""

    level: int
    title: str
    start: int
    body: int
    anchor: str = ""


class Section(NamedTuple):
    """The lines `start` up to `stop`, counted from 0, under the headings that `title` names."""

    title: str
    start: int
    stop: int
    anchor: str = ""


class Trail:
    """The headings that are open at a place, written `A › B`."""

    def __init__(self, root: str = "") -> None:
        self._open = [(0, root)] if root else []

    def enter(self, level: int, title: str) -> str:
        """Open a heading, closing those of its level and deeper, and return the trail."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, clip(title)))
        return str(self)

    def __str__(self) -> str:
        titles = [title for _, title in self._open if title]
        # A title and the first heading below it often say the same.
        return " › ".join(
            title for title, last in zip(titles, ["", *titles], strict=False) if title != last
        )


def clip(title: str) -> str:
    """Make a heading one line of bounded length."""
    title = " ".join(title.split())
    return title if len(title) <= _MAX_HEADING else title[: _MAX_HEADING - 1] + "…"


def sections_of(
    lines: Sequence[str], headings: Iterable[Heading], *, root: str = ""
) -> Iterator[Section]:
    """Cut lines before each heading; a heading with nothing below it joins the next section."""
    trail = Trail(root)
    title, anchor, start, body = str(trail), "", 0, 0
    for heading in headings:
        if any(line.strip() for line in lines[body : heading.start]):
            yield Section(title, start, heading.start, anchor)
            start, anchor = heading.start, ""
        title, body = trail.enter(heading.level, heading.title), heading.body
        anchor = anchor or heading.anchor
    yield Section(title, start, len(lines), anchor)


def section_pages(lines: Sequence[str], sections: Iterable[Section]) -> Iterator[Page]:
    """Turn sections into pages of at most about `MAX_BLOCK` characters, by line numbers."""
    for section in sections:
        for start, stop in blocks(lines, start=section.start, stop=section.stop):
            text = "\n".join(lines[start:stop])
            yield Page(f"lines {start + 1}-{stop}", None, section.title, text)


def blocks(lines: Sequence[str], *, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut a range of lines into blocks that begin and end with text.

    A block is as many whole paragraphs as fit `MAX_BLOCK`; a longer paragraph is cut between
    lines. A line is never cut, however long.
    """
    begin = end = start
    size = 0
    for first, last, chars in _paragraphs(lines, start, stop):
        gap = first - end
        if size and size + gap + chars > MAX_BLOCK:
            yield begin, end
            size = 0
        if not size:
            begin, gap = first, 0
        size += gap + chars
        end = last
    if size:
        yield begin, end


def _paragraphs(lines: Sequence[str], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield runs of lines that are not blank, of at most `MAX_BLOCK` characters, and their size."""
    first, size = start, 0
    for number in range(start, stop):
        chars = len(lines[number]) + 1 if lines[number].strip() else 0
        if size and (not chars or size + chars > MAX_BLOCK):
            yield first, number, size
            size = 0
        if chars and not size:
            first = number
        size += chars
    if size:
        yield first, stop, size
