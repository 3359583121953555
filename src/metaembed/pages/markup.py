"""Splitting HTML into tags and text, in one pass whatever the markup.

The standard parser, which beautifulsoup also uses, takes minutes for some malformed pages of a
few kilobytes. Here every character is looked at a bounded number of times and nothing nests. No
tree is built: what an unclosed element holds is simply what follows.
"""

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

UNSEEN = frozenset({"script", "style", "template", "noscript"})
"""Elements whose content a reader of the page does not see."""

_NAME = re.compile(r"[a-zA-Z][^\s/>]*+")
_SPACE = re.compile(r"[\s/]*+")
# A name, then perhaps a value. The quote that should close a quoted value is a group of its own:
# when it is empty, the markup ended inside the value.
_ATTRIBUTE = re.compile(
    r"""(=?[^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)("?)|'([^']*+)('?)|([^\s>"'][^\s>]*+)))?"""
)


class Tag(NamedTuple):
    """The start or end of an element."""

    name: str
    is_end: bool
    attributes: dict[str, str]


def tokens(markup: str) -> Iterator[Tag | str]:
    """Yield tags, and the text between them with its character references replaced.

    Comments and what `UNSEEN` elements hold are left out. Where a comment or such an element is
    never closed, it is read as if it had not been opened; where a tag is never closed, the rest
    is text: nothing is lost to a mistake.
    """
    return _Scanner(markup).tokens()


class _Scanner:
    def __init__(self, markup: str) -> None:
        self._markup = markup
        self._position = 0
        self._missing: set[str] = set()  # what `_after` has once looked for in vain

    def tokens(self) -> Iterator[Tag | str]:
        while self._position < len(self._markup):
            start = self._markup.find("<", self._position)
            if start < 0:
                start = len(self._markup)
            if start > self._position:
                yield unescape(self._markup[self._position : start])
                self._position = start
            elif (token := self._markup_token(start)) is not None:
                yield token

    def _markup_token(self, start: int) -> Tag | str | None:
        """Read what begins with the `<` at `start`, and move past it."""
        begins = self._markup.startswith
        if begins("<!--", start):
            self._move(self._after("-->", start + 2) or start + 4)  # `<!-->` is a whole comment
        elif begins("<![CDATA[", start) and (stop := self._after("]]>", start)):
            self._move(stop)
            return self._markup[start + 9 : stop - 3]
        elif name := _NAME.match(self._markup, start + 1):
            return self._tag(name, is_end=False)
        elif begins("</", start) and (name := _NAME.match(self._markup, start + 2)):
            return self._tag(name, is_end=True)
        elif begins(("<!", "<?", "</"), start) and (stop := self._after(">", start)):
            self._move(stop)
        else:
            self._move(start + 1)
            return "<"
        return None

    def _tag(self, name: re.Match[str], *, is_end: bool) -> Tag | str:
        attributes: dict[str, str] = {}
        stop = self._read_attributes(name.end(), attributes)
        if stop is None:
            self._move(len(self._markup))
            return unescape(self._markup[name.start() - 1 :])
        self._move(stop)
        tag = Tag(name[0].lower(), is_end, attributes)
        is_whole = self._markup[stop - 2] == "/"
        if tag.name in UNSEEN and not is_end and not is_whole:
            self._move(self._end_of(tag.name) or stop)
        return tag

    def _read_attributes(self, position: int, attributes: dict[str, str]) -> int | None:
        """Fill in attributes; return the position after the `>`, None when there is none."""
        markup = self._markup
        while (position := _end(_SPACE, markup, position)) < len(markup):
            if markup[position] == ">":
                return position + 1
            match = _ATTRIBUTE.match(markup, position)
            assert match is not None
            name, double, closed, single, closed_single, bare = match.groups()
            if closed == "" or closed_single == "":
                return None
            attributes.setdefault(name.lower(), double or single or bare or "")
            position = match.end()
        return None

    def _after(self, ending: str, position: int) -> int | None:
        if ending in self._missing:
            return None
        found = self._markup.find(ending, position)
        if found < 0:
            self._missing.add(ending)
            return None
        return found + len(ending)

    def _end_of(self, name: str) -> int | None:
        """Find the start of the next end tag of an element."""
        if name in self._missing:
            return None
        found = re.compile(rf"</{name}(?=[\s/>])", re.I).search(self._markup, self._position)
        if found is None:
            self._missing.add(name)
            return None
        return found.start()

    def _move(self, position: int) -> None:
        self._position = position


def unescape(text: str) -> str:
    """Replace character references; attributes of a `Tag` still have theirs."""
    try:
        return html.unescape(text)
    except ValueError:  # a numeric reference of thousands of digits
        return text


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None
    return match.end()
