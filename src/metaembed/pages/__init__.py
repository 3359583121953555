"""Reading a folder of files into retrievable pages and passages.

Files are untrusted: what cannot be read, is damaged or is not what it claims to be raises
`PageError` with a one-line reason. `read_pages` decodes them in this process, `Reader` in one that
a file may hang or crash. Nothing here knows models or vectors.
"""

from metaembed.pages.ocr import OCR_HINT, ocr_available, ocr_text
from metaembed.pages.page import Page
from metaembed.pages.passages import Passage, split_passages
from metaembed.pages.reader import Reader
from metaembed.pages.reading import SUPPORTED_SUFFIXES, find_files, read_pages

__all__ = [
    "OCR_HINT",
    "SUPPORTED_SUFFIXES",
    "Page",
    "Passage",
    "Reader",
    "find_files",
    "ocr_available",
    "ocr_text",
    "read_pages",
    "split_passages",
]
