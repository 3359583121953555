"""Docstrings and manuals as plain text: paragraphs, sentences, words.

Knows reStructuredText, Markdown, numpydoc and Google sections as far as telling prose from
parameter tables, code and markup needs. It is no renderer.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Paragraph(NamedTuple):
    """Text between blank lines, on one line, markup removed.

    `is_prose` is true for natural paragraphs, and false for parameters, lists and quotes.
    """

    text: str
    is_prose: bool


_UNDERLINE = re.compile(r"\s*([=\-~^\"'`#*+.:_])\1{2,}\s*")
_DROPPED_DIRECTIVE = re.compile(
    r"\.\. (?!(note|warning|seealso|tip|important|caution|hint|attention|admonition|rubric)::)"
)
_DIRECTIVE = re.compile(r"\.\. \w+::\s*")
_LIST_ITEM = re.compile(r"([-*+•]|\(?\d{1,2}[.)]|[|>:@]|\+--|\.\.|#)(\s|(?<=[|>:@#+.-]))")
_PARAMETER = re.compile(r"[*`\w, .\[\]()]{1,60}\s?:(\s|$)|[\w*, ]{1,40} -- |\w+ ?=[^=]")
_GOOGLE_SECTION = re.compile(r"[A-Z][A-Za-z ]{2,30}:{1,2}\s*")
_TABULAR_SECTIONS = frozenset(
    "parameters,other parameters,returns,return,yields,receives,raises,warns,"  # noqa: SIM905
    "attributes,methods,"
    "see also,references,examples,example,args,arguments,keyword args,keyword arguments,usage,"
    "options,members,inputs,outputs,shape".split(",")
)

_INLINE = (
    (re.compile(r"<!--.*?-->|</?[A-Za-z][^<>]{0,200}>"), " "),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)|\[!\[.*?\]\([^)]*\)\]\([^)]*\)"), " "),
    (re.compile(r":[\w:+.-]+:`~?([^`<]*?)\s*(?:<[^`>]*>)?`"), r"\1"),
    (re.compile(r"\[`~?([^`\]]+)`\](?:\([^)\s]*\))?"), r"\1"),
    (re.compile(r"\[([^\[\]]+)\]\((?:[^()\s]|\([^()]*\))+\)"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}"), r"\1"),
    (re.compile(r"`{1,2}([^`]+)`{1,2}_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])"), r"\1"),
    (re.compile(r"\[[#\w]{1,9}\]_"), " "),
    (re.compile(r"\|(\w+)\|"), r"\1"),
    (re.compile(r"\(?\b(?:https?|ftp)://[^\s)>\]]+\)?|<[^<>\s]+@[^<>\s]+>"), " "),
    (re.compile(r"(?<!\w)([A-Za-z][A-Za-z0-9]*)_(?=[\s.,;)])"), r"\1"),
    (re.compile(r"\\([*_`|])"), r"\1"),
    (re.compile(r"\s+([.,;:)])(?=\s|$)"), r"\1"),
    (re.compile(r"%\(\w+\)[sd]"), " "),
    (re.compile(r"\s>>+\s"), " "),
    (re.compile(r"\s+"), " "),
)

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]?[A-Z0-9_])")
_ABBREVIATION = re.compile(
    r"(\b(?i:e\.g|i\.e|etc|cf|vs|resp|approx|fig|eq|al|no|dr|mr|st)|(?<![\w.])[A-Z])\.$"
)


def paragraphs(doc: str) -> Iterator[Paragraph]:
    """Yield the readable paragraphs of a docstring in order, without code."""
    section, after_code_mark = "", False
    for chunk in _chunks(doc):
        title = _section_title(chunk)
        section = section if title is None else title
        tabular = section in _TABULAR_SECTIONS
        for lines, is_flush in _levels(chunk):
            if after_code_mark and lines[0].startswith(" "):
                continue  # the literal block that a `::` announces
            text = clean("\n".join(lines))
            if _is_readable(text):
                yield Paragraph(text, is_flush and not tabular and not _is_item(lines))
            after_code_mark = lines[-1].rstrip().endswith("::")


def _chunks(doc: str) -> Iterator[list[str]]:
    """Yield runs of lines between blank lines, without fences, doctests and dropped directives."""
    fenced = re.sub(r"(?ms)^[ \t]*(```).*?(^[ \t]*\1[ \t]*$|\Z)", "", doc.expandtabs())
    for text in re.split(r"\n[ ]*\n", fenced):
        lines: list[str] = []
        for line in text.splitlines():
            if line.lstrip().startswith((">>>", "In [")):
                break  # a doctest runs to the next blank line
            lines.append(line)
        if lines and _DROPPED_DIRECTIVE.match(lines[0].lstrip()):
            continue
        lines = [line for line in lines if line.strip()]
        if lines:
            yield lines


def _section_title(chunk: list[str]) -> str | None:
    """Return the lower-case title when the chunk opens a numpydoc or Google section."""
    if len(chunk) > 1 and _UNDERLINE.fullmatch(chunk[1]):
        return chunk[0].strip().lower()
    if chunk[0].startswith("#"):
        return chunk[0].lstrip("# ").lower()
    if _GOOGLE_SECTION.fullmatch(chunk[0]):
        return chunk[0].strip().rstrip(":").lower()
    return "" if len(chunk) == 1 and _UNDERLINE.fullmatch(chunk[0]) else None


def _levels(chunk: list[str]) -> Iterator[tuple[list[str], bool]]:
    """Cut a chunk at underlined titles, and where its indentation changes to or from flush left.

    Yields the lines with whether they are flush; a title is not. Underlines are dropped.
    """
    level: list[str] = []
    for line, following in zip(chunk, [*chunk[1:], ""], strict=True):
        if _UNDERLINE.fullmatch(line):
            continue
        is_title = bool(_UNDERLINE.fullmatch(following))
        if level and (is_title or line.startswith(" ") != level[0].startswith(" ")):
            yield level, not level[0].startswith(" ")
            level = []
        if is_title:
            yield [line], False
        else:
            level.append(line)
    if level:
        yield level, not level[0].startswith(" ")


def _is_item(lines: list[str]) -> bool:
    first = lines[0].strip()
    return bool(_LIST_ITEM.match(first) or _PARAMETER.match(first))


def _is_readable(text: str) -> bool:
    """Tell text from ASCII tables, rulers and symbol soup."""
    letters = sum(character.isalpha() or character == " " for character in text)
    return len(text) > 2 and letters >= 0.72 * len(text)


def clean(text: str) -> str:
    """Remove inline markup and collapse white space.

    >>> clean("See :func:`~json.dumps` and ``x``;  [here](https://example.org).")
    'See json.dumps and x; here.'
    """
    text = _DIRECTIVE.sub("", text)
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    return text.strip()


def sentences(text: str) -> list[str]:
    """Split cleaned text at sentence ends; common abbreviations do not end one.

    >>> sentences("Sort a list, e.g. Of names. Return None.")
    ['Sort a list, e.g. Of names.', 'Return None.']
    """
    found: list[str] = []
    for part in _SENTENCE_END.split(text):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {part}"
        else:
            found.append(part)
    return [sentence.strip() for sentence in found if sentence.strip()]


def normalised(text: str) -> str:
    """Return the lower-case words of a text, by which duplicates are found."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
