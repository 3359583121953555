"""What is wrong with an index, whether it opens or not: all of it, as far as it can be read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from metaembed.errors import IndexFormatError, one_line
from metaembed.index import legacy
from metaembed.index.catalog import Catalog
from metaembed.index.disk import DamageError, problem_line, require_folder
from metaembed.index.folder import CATALOG, MANIFEST, SEGMENTS
from metaembed.index.manifest import read_manifest
from metaembed.index.segments import Segment, Segments
from metaembed.index.snapshot import Snapshot

Progress = Callable[[int, int], None]
"""Is told how many bytes of vectors have been read, and of how many."""

METADATA_PROBLEM = "SELECT 1 FROM items WHERE NOT json_valid(metadata) LIMIT 1"


def verify(path: Path, progress: Progress = lambda *_: None) -> list[str]:
    """Read every byte and describe each problem in a line; see `Index.verify`."""
    findings = _Findings(path.name)
    segments = None
    with findings.collected():
        segments = Segments(path / SEGMENTS, read_manifest(path / MANIFEST))
    with findings.collected():
        require_folder(path / SEGMENTS, of=path.name)
    with findings.collected(), closing(Catalog(path / CATALOG)) as catalog:
        described: dict[int, Segment] = {}
        with findings.collected(), catalog.reading():
            described, wrong = catalog.described()
            findings.add([error.problem for error in wrong.values()], CATALOG)
        for check in _catalog_checks(segments):
            # Each in a transaction of its own: one that cannot go on leaves the others alone.
            with findings.collected(), catalog.reading():
                findings.add(check(catalog), CATALOG)
        if segments is not None:
            found = _vector_problems(segments, described, progress)
            with catalog.reading():  # leaves out what was put together with others meanwhile
                current = catalog.described()[0]
            for number in found:
                findings.lines += found[number] if number in current else []
    return list(dict.fromkeys(findings.lines))


class _Findings:
    """The problems of an index, a line each."""

    def __init__(self, name: str):
        self._name = name
        self.lines: list[str] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Note what keeps the block from its end, and go on after it."""
        try:
            yield
        except IndexFormatError as error:
            self.lines.append(problem_line(self._name, error))

    def add(self, problems: Iterable[str], file: str) -> None:
        self.lines += [problem_line(self._name, f"{problem} ({file})") for problem in problems]


def _catalog_checks(segments: Segments | None) -> Sequence[Callable[[Catalog], Iterable[str]]]:
    checks = [_table_problems, _metadata_problems, _text_problems, _counter_problems]
    if segments is not None:
        checks.insert(1, partial(_item_problems, segments))
    return checks


def _table_problems(catalog: Catalog) -> Iterator[str]:
    if found := integrity_problem(catalog):
        yield found
    if catalog.is_legacy():
        for problem, query in legacy.PROBLEMS.items():
            if catalog.database.execute(f"{query} LIMIT 1").fetchone() is not None:
                yield problem


def integrity_problem(catalog: Catalog) -> str | None:
    """What SQLite finds wrong with its file."""
    found = catalog.database.execute("PRAGMA integrity_check").fetchone()[0]
    return None if found == "ok" else f"SQLite finds {one_line(found, limit=200)}"


def _item_problems(segments: Segments, catalog: Catalog) -> Iterator[str]:
    """Compare the items with the rows that should be theirs, where all files have their sizes.

    How many rows there are is not known otherwise; it may be said that they are endlessly many.
    """
    described, wrong = catalog.described()
    if catalog.is_legacy() or wrong or any(map(segments.misfits, described.values())):
        return
    live = Snapshot(catalog.name, 0, catalog.entries({})).sequences
    items = catalog.item_sequences()
    if len(np.setdiff1d(items, live, assume_unique=True)):
        yield "an item has no row in any segment"
    if len(np.setdiff1d(live, items, assume_unique=True)):
        yield "a row that is not deleted has no item"


def _metadata_problems(catalog: Catalog) -> Iterator[str]:
    if catalog.database.execute(METADATA_PROBLEM).fetchone() is not None:
        yield "the metadata of an item is not JSON"


def _text_problems(catalog: Catalog) -> Iterator[str]:
    texts = catalog.texts()
    if problem := texts.problem():
        yield problem
    if len(np.setdiff1d(texts.sequences(), catalog.item_sequences(), assume_unique=True)):
        yield "a text has no item"


def _counter_problems(catalog: Catalog) -> Iterator[str]:
    """Numbers from which no writer could go on."""
    if not catalog.is_legacy():
        for following in (catalog.next_segment, catalog.next_sequence):
            try:
                following()
            except DamageError as error:
                yield error.problem


def _vector_problems(
    segments: Segments, described: Mapping[int, Segment], progress: Progress
) -> dict[int, list[str]]:
    """The lines of each segment."""
    total = sum(file.num_bytes for one in described.values() for file in one.files)
    done = 0

    def read(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        progress(done, total)

    return {number: segments.problems(one, progress=read) for number, one in described.items()}
