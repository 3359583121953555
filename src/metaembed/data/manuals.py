"""READMEs and manuals in reStructuredText or Markdown, cut into headed sections."""

import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

_UNDERLINE = re.compile(r"([=\-~^\"'#*+.:_])\1{2,}\s*")
_HASH_HEADING = re.compile(r"#{1,5}\s+(.*?)\s*#*")
_FENCE = re.compile(r"\s*```")


class Section(NamedTuple):
    """A heading and the text below it, up to the next heading of any level."""

    heading: str
    body: str


def sections(text: str) -> Iterator[Section]:
    """Split a manual at its headings; text above the first one has an empty heading."""
    heading, body, in_code = "", list[str](), False
    lines = text.expandtabs().splitlines()
    for number, line in enumerate(lines):
        if _FENCE.match(line):
            in_code = not in_code
        following = lines[number + 1] if number + 1 < len(lines) else ""
        found = None if in_code else _heading(line, following)
        if found is None:
            body.append(line)
            continue
        yield from _section(heading, body)
        heading, body = found, []
    yield from _section(heading, body)


def _heading(line: str, following: str) -> str | None:
    if hashed := _HASH_HEADING.fullmatch(line):
        return hashed[1]
    is_title = bool(line[:1].strip()) and not _UNDERLINE.fullmatch(line)
    if is_title and _UNDERLINE.fullmatch(following) and len(following) + 1 >= len(line.rstrip()):
        return line.strip()
    return None


def _section(heading: str, body: list[str]) -> Iterator[Section]:
    kept = [line for line in body if not _UNDERLINE.fullmatch(line)]
    text = textwrap.dedent("\n".join(kept)).strip("\n").rstrip()
    if text:
        yield Section(heading, text)
