"""Pictures as pages."""

from collections.abc import Iterator
from pathlib import Path

from metaembed.errors import ItemError, PageError
from metaembed.images import frames_of
from metaembed.pages.ocr import text_of
from metaembed.pages.page import Page


def image_pages(path: Path, *, images: bool, ocr: bool) -> Iterator[Page]:
    """Read a picture, or each page of a TIFF of several; raises `PageError`."""
    try:
        for number, image in frames_of(path):
            place = "image" if number is None else f"page {number}"
            text = text_of(image, name=f"{path.name}, {place}") if ocr else ""
            yield Page(place, number, "", text, image if images else None)
    except ItemError as error:
        raise PageError(str(error)) from None
