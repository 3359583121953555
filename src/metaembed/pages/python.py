"""Python source: one page for each function, method and class head, without importing it."""

import ast
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence

from metaembed.pages.lines import Section, section_pages
from metaembed.pages.page import Page
from metaembed.pages.text import text_pages

MAX_PARSED = 4 << 20
"""Longest source that is parsed, in characters: a tree takes some 100 times its source's memory."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_pages(text: str, *, module: str) -> Iterator[Page]:
    """Read definitions, titled `module.Class.method`; what does not parse is read as plain text."""
    tree = _parse(text)
    if tree is None:
        return text_pages(text)
    lines = text.split("\n")
    return section_pages(lines, _sections(lines, tree.body, module=module))


def _parse(text: str) -> ast.Module | None:
    if len(text) > MAX_PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the source's own invalid escapes and the like
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _sections(lines: Sequence[str], body: Iterable[ast.stmt], *, module: str) -> Iterator[Section]:
    titles = [module]
    owners = [0] * len(lines)  # of each line, the place in `titles` of its innermost definition
    for title, start, stop in _definitions(lines, body, prefix=module):
        owners[start:stop] = [len(titles)] * (stop - start)
        titles.append(title)
    start = 0
    for owner, run in itertools.groupby(owners):
        stop = start + len(list(run))
        yield Section(titles[owner], start, stop)
        start = stop


def _definitions(
    lines: Sequence[str], body: Iterable[ast.stmt], *, prefix: str
) -> Iterator[tuple[str, int, int]]:
    """Yield title and lines of functions and classes, a class before what it holds."""
    for node in body:
        if not isinstance(node, _Function | ast.ClassDef):
            continue
        title = f"{prefix}.{node.name}"
        yield title, _first_line(lines, node), node.end_lineno or node.lineno
        if isinstance(node, ast.ClassDef):
            yield from _definitions(lines, node.body, prefix=title)


def _first_line(lines: Sequence[str], node: _Function | ast.ClassDef) -> int:
    """Return the line (from 0) where a definition begins: decorators and comments right above."""
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return start
