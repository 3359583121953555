"""HTML: what a reader of the page sees, in sections under h1 to h6."""

import re
from collections.abc import Iterator

from metaembed.pages.lines import Heading, blocks, clip, sections_of
from metaembed.pages.markup import Tag, tokens, unescape
from metaembed.pages.page import Page

_BLOCK_NAMES = """
    address article aside blockquote body caption center details dialog dir div dl fieldset
    figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html iframe legend main
    menu nav ol optgroup p pre search section select summary table tbody tfoot thead title ul
"""
_APART_NAMES = "audio button canvas img input object svg td textarea th video"
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_LINES = frozenset({"br", "dd", "dt", "li", "option", "tr"})
_APART = frozenset(_APART_NAMES.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_ANCHOR = re.compile(r"[\w.:-]{1,80}")


def html_pages(text: str) -> Iterator[Page]:
    """Read sections, titled `<title> › h1 › h2`; the place is the heading's id where it has one."""
    reader = _Reader()
    for token in tokens(text):
        reader.read(token)
    reader.end_heading()
    reader.end_line()
    if not any(reader.lines):
        reader.lines = [reader.title] if reader.title else []
    taken: set[str] = set()
    sections = sections_of(reader.lines, reader.headings, root=clip(reader.title or ""))
    for number, section in enumerate(sections, start=1):
        place = f"section {number}"
        if _ANCHOR.fullmatch(section.anchor) and section.anchor not in taken:
            taken.add(section.anchor)
            place = f"#{section.anchor}"
        parts = blocks(reader.lines, start=section.start, stop=section.stop)
        for part, (start, stop) in enumerate(parts, start=1):
            where = place if part == 1 else f"{place}, part {part}"
            yield Page(where, None, section.title, "\n".join(reader.lines[start:stop]))


class _Reader:
    """Lays text out in lines as its tags say, and notes the headings."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.headings: list[Heading] = []
        self.title: str | None = None
        self._line: list[str] = []
        self._title: list[str] | None = None  # the words of an open <title>
        self._heading: Heading | None = None  # the one that is open
        self._anchor = ""  # the last id or name since any text
        self._num_open_pre = 0

    def read(self, token: Tag | str) -> None:
        if isinstance(token, str):
            self._read_text(token)
            return
        if self._title is not None:
            self._end_title(self._title)
        if token.name == "title" and not token.is_end and self.title is None:
            self._title = []
        elif token.name in _HEADINGS:
            self.end_heading()
            if not token.is_end:
                self._begin_heading(_HEADINGS[token.name])
        elif token.name in _BLOCKS:
            self._begin_block()
        elif token.name in _LINES:
            self.end_line()
        elif token.name in _APART:
            self._line.append(" ")
        self._note(token)

    def _note(self, token: Tag) -> None:
        if token.name == "pre":
            self._num_open_pre = max(0, self._num_open_pre + (-1 if token.is_end else 1))
        if anchor := token.attributes.get("id") or token.attributes.get("name", ""):
            self._anchor = anchor
            if self._heading is not None and not self._heading.anchor:
                self._heading = self._heading._replace(anchor=anchor)
        if alternative := token.attributes.get("alt"):
            self._read_text(f" {unescape(alternative)} ")

    def _read_text(self, text: str) -> None:
        if self._title is not None:
            self._title.append(text)
            return
        if not text.isspace():
            self._anchor = ""
        if not self._num_open_pre:
            self._line.append(text)
            return
        first, *rest = text.split("\n")
        self._line.append(first)
        for line in rest:
            self.end_line()
            self._line.append(line)

    def end_line(self) -> None:
        line = "".join(self._line)
        self._line.clear()
        # Outside <pre>, line ends and runs of spaces are one space.
        line = line.rstrip() if self._num_open_pre else " ".join(line.split())
        if line:
            self.lines.append(line)
        elif self._num_open_pre:
            self._blank()

    def _begin_block(self) -> None:
        """Set a block apart by a blank line; an open heading that has its words ends."""
        self.end_line()
        if self._heading is not None and len(self.lines) > self._heading.start:
            self.end_heading()
        self._blank()

    def _blank(self) -> None:
        if self.lines and self.lines[-1]:
            self.lines.append("")

    def _begin_heading(self, level: int) -> None:
        self.end_line()
        self._blank()
        self._heading = Heading(level, "", len(self.lines), 0, self._anchor)

    def end_heading(self) -> None:
        self.end_line()
        if (heading := self._heading) is not None:
            self._heading = None
            words = [word for line in self.lines[heading.start :] for word in line.split()]
            # Generated pages hang a link sign on each heading.
            title = " ".join(words).rstrip("¶#🔗 ")
            if title:
                self.headings.append(heading._replace(title=title, body=len(self.lines)))
        self._blank()

    def _end_title(self, words: list[str]) -> None:
        self.title = " ".join("".join(words).split())
        self._title = None
