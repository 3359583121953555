"""Verifying and repairing an index together with its ledger."""

import itertools
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from metaembed.errors import IndexFormatError
from metaembed.index import Index
from metaembed.index.checks import verify as verify_index
from metaembed.ledger.file import AGAIN, FILE, DamagedError, opened, require_whole
from metaembed.ledger.ledger import Ledger


class Repaired(NamedTuple):
    """What a repair did."""

    lines: tuple[str, ...]
    """Each a sentence; empty: there was nothing to repair."""
    lost: tuple[str, ...]
    """The ids of items that are gone from the index."""
    forgotten: int
    """Passages that the next run over the folder encodes again."""


def verify(path: Path, *, progress: Callable[[int, int], None] = lambda *_: None) -> list[str]:
    """Describe each problem of an index and its ledger in a line; an empty list means sound.

    `progress` as in `Index.verify`.
    """
    problems = verify_index(path.absolute(), progress)
    try:
        if problems:  # then it is not known which passages the index has
            return problems + _damage(path)
        with Index.open(path) as index:
            return _problems(index)
    except IndexFormatError as error:
        return [*problems, str(error)]


def repair(path: Path) -> Repaired:
    """Repair an index (see `Index.repair`) and forget what its ledger wrongly believes is in it.

    A ledger that is damaged is put aside. Let nobody bring the index up to date meanwhile.
    """
    is_damaged = _is_damaged(path)  # whatever else is wrong with it is raised now
    lines, lost = Index.repair(path)
    if is_damaged:
        return Repaired((*lines, _put_aside(path)), lost, 0)
    if not (path / FILE).exists():
        return Repaired(lines, lost, 0)
    with closing(Ledger(path)) as ledger, Index.open(path) as index:
        forgotten = ledger.forget_all_but(index.ids())
    if forgotten:
        lines = (*lines, f"{forgotten} passages are forgotten in {FILE}: {AGAIN} encodes them.")
    return Repaired(lines, lost, forgotten)


def _damage(folder: Path) -> list[str]:
    """Of the ledger of any index."""
    if (folder / FILE).exists():
        with opened(folder) as ledger:
            require_whole(ledger)
    return []


def _problems(index: Index) -> list[str]:
    """Of the ledger of a sound index."""
    if not (index.path / FILE).exists():
        return []
    try:
        with opened(index.path) as ledger:
            require_whole(ledger)
            missing = _passages(ledger) - set(index.ids())
            # Of what was removed while this was reading, nothing is there now.
            missing &= _passages(ledger)
    except IndexFormatError as error:
        return [str(error)]
    if not missing:
        return []
    return [
        f"Index {index.path.name!r}: {len(missing):,} passages that {FILE} lists are not in the "
        f"index, for example {min(missing)!r}."
    ]


def _passages(ledger: sqlite3.Connection) -> set[str]:
    return {id for (id,) in ledger.execute("SELECT id FROM passages")}


def _is_damaged(folder: Path) -> bool:
    if not (folder / FILE).exists():
        return False
    try:
        with opened(folder) as ledger:
            require_whole(ledger)
        Ledger(folder).close()
    except DamagedError:
        return True
    return False


def _put_aside(folder: Path) -> str:
    aside = folder / "damaged"
    aside.mkdir(exist_ok=True)
    names = itertools.chain([FILE], (f"{FILE}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if not (aside / name).exists())
    with suppress(FileNotFoundError):  # or SQLite would apply it to the next ledger
        (folder / f"{FILE}-journal").rename(aside / f"{name}-journal")
    (folder / FILE).rename(aside / name)
    return f"{FILE} is damaged and lies in damaged/{name}: {AGAIN} reads everything."
