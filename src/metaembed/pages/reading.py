"""The way in: which files are read, and by which reader."""

from collections.abc import Iterator
from pathlib import Path

from metaembed.errors import PageError
from metaembed.files import read_bytes
from metaembed.images import IMAGE_SUFFIXES
from metaembed.pages.files import walk_files
from metaembed.pages.html import html_pages
from metaembed.pages.image import image_pages
from metaembed.pages.markdown import markdown_pages
from metaembed.pages.page import Page
from metaembed.pages.pdf import pdf_pages
from metaembed.pages.python import python_pages
from metaembed.pages.rst import rst_pages
from metaembed.pages.text import MAX_TEXT_BYTES, decode, table_pages, text_pages

_PLAIN = """
    .adoc .bib .cfg .conf .csv .ini .json .jsonl .log .ndjson .org .properties .srt .tex .text
    .toml .tsv .txt .vtt .xml .yaml .yml
    .c .cc .cpp .cs .css .cu .cuh .go .h .hpp .java .jl .js .jsx .kt .lua .m .php .pl .proto .ps1
    .r .rb .rs .scala .sh .sql .swift .ts .tsx .vue
"""
_MARKED_UP = ".htm .html .markdown .md .mdx .py .pyi .rst .xhtml"
_NAMES = """
    AUTHORS CHANGELOG CHANGES COPYING Dockerfile INSTALL LICENSE Makefile NEWS NOTICE README TODO
"""
_PLAIN_NAMES = frozenset(_NAMES.split())

SUPPORTED_SUFFIXES = frozenset([*_PLAIN.split(), *_MARKED_UP.split(), *IMAGE_SUFFIXES, ".pdf"])
"""Lower case; the case of a file's suffix does not matter."""


def find_files(folder: Path) -> list[Path]:
    """List the files below `folder` that `read_pages` reads, sorted, each once.

    They have one of `SUPPORTED_SUFFIXES` or a name such as README or LICENSE. Hidden files and
    folders, `__pycache__` and `node_modules` are left out, links never lead out of the folder.
    Raises `PageError` when `folder` is not a folder that can be listed.
    """
    return walk_files(folder, wanted=_is_read)


def read_pages(path: Path, *, images: bool = False, ocr: bool = True) -> Iterator[Page]:
    """Read a file page by page; a file without any text or picture has no pages.

    `images` asks for rendered pages and pictures too; `ocr` lets tesseract, where it is
    installed, read scans and pictures. Raises `PageError` for a file that cannot be read; the
    message gives the reason and not the path.
    """
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        yield from pdf_pages(path, images=images, ocr=ocr)
    elif suffix in IMAGE_SUFFIXES:
        yield from image_pages(path, images=images, ocr=ocr)
    elif _is_read(path):
        yield from _read_text(path, suffix)
    else:
        kind = f"{suffix} files" if suffix else "files without a suffix"
        raise PageError(f"There is no reader for {kind}; save a PDF, HTML or text version of it.")


def _read_text(path: Path, suffix: str) -> Iterator[Page]:
    text = decode(read_bytes(path, limit=MAX_TEXT_BYTES))
    match suffix:
        case ".md" | ".markdown" | ".mdx":
            return markdown_pages(text)
        case ".rst":
            return rst_pages(text)
        case ".html" | ".htm" | ".xhtml":
            return html_pages(text)
        case ".py" | ".pyi":
            return python_pages(text, module=_module(path))
        case ".csv" | ".tsv":
            return table_pages(text)
        case _:
            return text_pages(text)


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in SUPPORTED_SUFFIXES or path.name in _PLAIN_NAMES


def _module(path: Path) -> str:
    """Name a Python file as it is imported, as far as its own folder tells."""
    return path.parent.name if path.stem == "__init__" and path.parent.name else path.stem
