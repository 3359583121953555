"""Files to read, made by hand, and what must hold of what is read."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from metaembed.pages import Page


def pdf_of(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """Write a PDF file of numbered objects, the first of which is the catalogue."""
    content = b"%PDF-1.7\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        content
        + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
        + b"trailer<</Size %d/Root 1 0 R%s>>\n" % (len(objects) + 1, trailer)
        + b"startxref\n%d\n%%%%EOF" % len(content)
    )


def text_pdf(*pages: Sequence[str], catalogue: bytes = b"", more: Sequence[bytes] = ()) -> bytes:
    """Write pages of lines in Helvetica; page n is object 2n + 2, `more` follow the last."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * index) for index in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R%s>>" % catalogue,
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages)),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for index, lines in enumerate(pages):
        shown = b" ".join(b"(%s) Tj T*" % line.encode("cp1252") for line in lines)
        drawing = b"BT /F1 12 Tf 14 TL 72 720 Td %s ET" % shown
        objects += [
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]"
            b"/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>" % (5 + 2 * index),
            b"<</Length %d>>stream\n%s\nendstream" % (len(drawing), drawing),
        ]
    return pdf_of([*objects, *more])


def blank_pdf(*pages: bytes) -> bytes:
    """Write pages without content, each of the given dictionary entries (`/MediaBox[…]`)."""
    kids = b" ".join(b"%d 0 R" % (3 + index) for index in range(len(pages)))
    tree = b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages))
    bodies = [b"<</Type/Page/Parent 2 0 R%s>>" % entries for entries in pages]
    return pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", tree, *bodies])


def first_lost_word(words: Iterable[str], pages: Iterable[Page]) -> str | None:
    """Return the first word that does not occur, in its turn, in the pages' text."""
    read = (word for page in pages for word in page.text.split())
    return next((word for word in words if word not in read), None)


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
