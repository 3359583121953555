"""What a file is read into."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image


class Page(NamedTuple):
    """One retrievable place of a file: a page of a PDF, a picture, a section of a text."""

    place: str
    """Where in the file, unique and stable within it: `page 3`, `lines 10-42`, `image`."""
    page: int | None
    """Counted from 1; None where the file has no pages."""
    title: str
    """The heading or definition it belongs to, outermost first; empty when there is none."""
    text: str
    """Everything readable there; empty for a picture of which nothing could be read."""
    image: "Image.Image | None" = None
    """RGB, when it was asked for and the place has one."""
