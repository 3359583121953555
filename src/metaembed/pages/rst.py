"""reStructuredText: sections under underlined, or over- and underlined, headings."""

import string
from collections.abc import Iterator, Sequence

from metaembed.pages.lines import Heading, section_pages, sections_of
from metaembed.pages.page import Page

_ADORNMENTS = frozenset(string.punctuation)
# docutils takes a shorter underline for a heading, with a warning, from this length on.
_MIN_SHORT = 4


def rst_pages(text: str) -> Iterator[Page]:
    lines = text.split("\n")
    return section_pages(lines, sections_of(lines, _headings(lines)))


def _headings(lines: Sequence[str]) -> Iterator[Heading]:
    """Find headings; a style's level is the order in which the file first uses it."""
    levels: dict[tuple[str, bool], int] = {}
    free = 0  # the first line that no heading has taken
    for number in range(1, len(lines)):
        title, mark = lines[number - 1], _adornment(lines[number])
        if number - 1 < free or not mark or not _is_title(title, mark):
            continue
        over = number - 2 >= free and _adornment(lines[number - 2]) == mark
        if not over and (title[0].isspace() or _adornment(title)):
            continue  # indented text is a quote; two rules in a row are a table
        level = levels.setdefault((mark[0], over), len(levels) + 1)
        free = number + 1
        yield Heading(level, title, number - 2 if over else number - 1, free)


def _adornment(line: str) -> str:
    """Return the line when it is one punctuation character repeated, else nothing."""
    line = line.rstrip()
    return line if line and line[0] in _ADORNMENTS and line == line[0] * len(line) else ""


def _is_title(line: str, mark: str) -> bool:
    line = line.rstrip()
    return bool(line) and len(mark) >= min(len(line), _MIN_SHORT)
