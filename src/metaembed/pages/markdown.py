"""Markdown: sections under ATX and setext headings."""

import re
from collections.abc import Iterator, Sequence

from metaembed.pages.lines import Heading, section_pages, sections_of
from metaembed.pages.page import Page

_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_SETEXT = re.compile(r" {0,3}(?:={2,}|-{2,})[ \t]*$")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
# Lines that are not paragraph text, so that dashes below them are a rule, not an underline.
_NOT_PARAGRAPH = re.compile(r"(?: {4}|\t|\s*(?:[-*+>|<]|\d+[.)][ \t]|#{1,6}(?:[ \t]|$)|={2,}|$))")


def markdown_pages(text: str) -> Iterator[Page]:
    """Read sections; code fences and front matter hold no headings but stay in the text."""
    lines = text.split("\n")
    return section_pages(lines, sections_of(lines, _headings(lines)))


def _headings(lines: Sequence[str]) -> Iterator[Heading]:
    begin = _front_matter(lines)
    fence = ""
    for number in range(begin, len(lines)):
        line = lines[number]
        if fence:
            fence = "" if _closes(line, fence) else fence
        elif opened := _opened_fence(line):
            fence = opened
        elif atx := _ATX.match(line):
            yield Heading(len(atx[1]), _atx_title(line[atx.end() :]), number, number + 1)
        elif number > begin and _SETEXT.match(line) and not _NOT_PARAGRAPH.match(lines[number - 1]):
            level = 1 if line.lstrip().startswith("=") else 2
            yield Heading(level, lines[number - 1], number - 1, number + 1)


def _front_matter(lines: Sequence[str]) -> int:
    """Count the lines of a `---` block at the top, whose rules are no underlines."""
    if lines[0].rstrip() != "---":
        return 0
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() in ("---", "..."):
            return number + 1
    return 0


def _opened_fence(line: str) -> str:
    match = _FENCE.match(line)
    if match is None or (match[1][0] == "`" and "`" in line[match.end() :]):
        return ""  # backticks after it: code within a paragraph
    return match[1]


def _closes(line: str, fence: str) -> bool:
    line = line.strip()
    return len(line) >= len(fence) and line == fence[0] * len(line)


def _atx_title(rest: str) -> str:
    """Drop the closing number signs, which need a space before them: `## A ##` but `# C#`."""
    rest = rest.strip()
    bare = rest.rstrip("#")
    return bare.rstrip() if not bare or bare[-1] in " \t" else rest
