"""PDF: the text layer of each page, its picture, and the text of scans."""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from metaembed.errors import PageError
from metaembed.files import open_regular
from metaembed.images import flatten
from metaembed.pages.lines import Trail
from metaembed.pages.ocr import ocr_available, text_of
from metaembed.pages.page import Page
from metaembed.pages.pdf_text import annotation_text, tidy

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

MAX_SIDE = 1_280
"""Pixels of a page's longer side: 110 dpi for A4, about what vision models take in."""
_OCR_SIDE = 3_600  # A4 or Letter at 300 dpi, for which tesseract is made
_MAX_SCALE = 300 / 72  # pixels per point: small pages are not blown up beyond 300 dpi
_MAX_BOOKMARKS = 20_000  # of an outline that may be endless


def pdf_pages(path: Path, *, images: bool, ocr: bool) -> Iterator[Page]:
    """Read each page, titled as the outline says; raises `PageError`.

    A page without a text layer is read by OCR, where that is wanted and installed. A damaged page
    is logged and left out; a file of which no page can be loaded raises.
    """
    pdfium = _pdfium()
    damaged = []
    with open_regular(path) as file, _document(file) as pdf:
        num_pages = len(pdf)
        reader = _PageReader(pdf, name=path.name, images=images, ocr=ocr and ocr_available())
        for number, title in enumerate(_titles(pdf), start=1):
            try:
                page = reader.read(number, title=title)
            except pdfium.PdfiumError:
                damaged.append(number)
                continue
            yield page
    if len(damaged) == num_pages:
        raise PageError(f"None of the PDF's {num_pages} pages can be loaded; the file is damaged.")
    if damaged:
        log.warning(
            "%s: %d of %d pages cannot be loaded and are left out, the first is page %d.",
            *(path, len(damaged), num_pages, damaged[0]),
        )


class _PageReader(NamedTuple):
    pdf: Any
    name: str
    images: bool
    ocr: bool

    def read(self, number: int, *, title: str) -> Page:
        place = f"page {number}"
        with contextlib.closing(self.pdf[number - 1]) as page:
            with contextlib.closing(page.get_textpage()) as layer:
                text = tidy(layer.get_text_bounded())
            image = None
            # A layer without a letter or digit is what a font without a character table leaves.
            if self.ocr and not any(map(str.isalnum, text)):
                image = _render(page, max_side=_OCR_SIDE)
                text = (image and text_of(image, name=f"{self.name}, {place}")) or text
            notes = annotation_text(page, self.pdf.formenv)
            text = "\n\n".join(filter(None, [text, notes]))
            if not self.images:
                return Page(place, number, title, text)
            if image is None:
                image = _render(page, max_side=MAX_SIDE)
            else:
                image.thumbnail((MAX_SIDE, MAX_SIDE))
            return Page(place, number, title, text, image)


def _pdfium() -> Any:
    try:
        import pypdfium2
    except ImportError:
        raise PageError(
            'Reading PDFs needs pypdfium2; install it with pip install "metaembed[pages]".'
        ) from None
    return pypdfium2


@contextlib.contextmanager
def _document(file: BinaryIO) -> Iterator[Any]:
    pdfium = _pdfium()
    try:
        pdf = pdfium.PdfDocument(file)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            reason = "The PDF needs a password; save a copy without one."
        else:
            reason = "This is not a readable PDF: it is damaged, cut off or of another type."
        raise PageError(reason) from None
    with contextlib.closing(pdf):
        # Before any page is loaded: without it what is typed into a form is neither read nor drawn.
        with contextlib.suppress(pdfium.PdfiumError):
            pdf.init_forms()
        yield pdf


def _titles(pdf: Any) -> Iterator[str]:
    """Yield each page's place in the outline: what begins on it, or else what goes on there."""
    first: dict[int, str] = {}
    last: dict[int, str] = {}
    trail = Trail()
    for bookmark in itertools.islice(pdf.get_toc(), _MAX_BOOKMARKS):
        title = trail.enter(bookmark.level + 1, bookmark.get_title())
        target = bookmark.get_dest()
        index = target.get_index() if target else None
        if index is not None:
            first.setdefault(index, title)
            last[index] = title
    title = ""
    for index in range(len(pdf)):
        yield first.get(index, title)
        title = last.get(index, title)


def _render(page: Any, *, max_side: int) -> "Image.Image | None":
    """Draw a page, whatever size it claims; None for a page without an area."""
    width, height = page.get_size()
    if min(width, height) <= 0:  # cropped to nothing
        return None
    # pdfium rounds up, so half a pixel is kept back.
    scale = min(_MAX_SCALE, (max_side - 0.5) / max(width, height))
    with contextlib.closing(page.render(scale=scale)) as bitmap:
        return flatten(bitmap.to_pil())
