"""Plain text: finding out its encoding, and reading it in blocks of paragraphs."""

import codecs
import re
from collections.abc import Iterator

from metaembed.errors import PageError
from metaembed.pages.lines import Section, clip, section_pages
from metaembed.pages.page import Page

MAX_TEXT_BYTES = 64 << 20

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What HTML, XML and Python sources say of themselves in their first lines.
_DECLARED = re.compile(rb"(?:charset|encoding|coding)[ \t]*[:=][ \t]*[\"']?([\w.-]+)", re.ASCII)
# Python also has codecs that are no character sets, and slow ones (punycode); none is taken.
_CHARACTER_SET = re.compile(
    r"(iso[-_]?8859|windows[-_]|cp\d|latin|koi8|shift[-_]?jis|euc[-_]|gb|big5|mac|tis)", re.I
)


def decode(content: bytes) -> str:
    """Decode a text file, lines ending in `\\n`.

    Tried in turn: a byte-order mark, UTF-8, what the file declares (HTML, XML, Python), UTF-8
    with a few broken bytes, Windows-1252. Raises `PageError` for binary content.
    """
    text = _decode(content)
    if "\0" in text:
        raise PageError("This is a binary file, not text; save it as UTF-8 text to have it read.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(content: bytes) -> str:
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, errors="replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_declared(content) or _decode_broken(content)


def _decode_declared(content: bytes) -> str | None:
    match = _DECLARED.search(content[:2048])
    name = match[1].decode("ascii") if match else ""
    if not _CHARACTER_SET.match(name):
        return None
    try:
        return content.decode(name)
    except (LookupError, UnicodeDecodeError):
        return None


def _decode_broken(content: bytes) -> str:
    """Tell UTF-8 with a few broken bytes (a cut log) from an 8-bit character set."""
    text = content.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    whole = len(text) - len(text.encode("ascii", "ignore")) - broken
    if whole > broken:
        return text
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def text_pages(text: str) -> Iterator[Page]:
    lines = text.split("\n")
    return section_pages(lines, [Section("", 0, len(lines))])


def table_pages(text: str) -> Iterator[Page]:
    """Read rows of a CSV or TSV file; the header row is the title, so that rows keep its words."""
    lines = text.split("\n")
    header = next((line for line in lines if line.strip()), "")
    return section_pages(lines, [Section(clip(header), 0, len(lines))])
