"""Indexes from indexes: shrunk and merged together with their ledgers."""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from metaembed.budget import Budget
from metaembed.errors import IndexMismatchError
from metaembed.index import Index
from metaembed.ledger.file import FILE, opened
from metaembed.ledger.ledger import Ledger

if TYPE_CHECKING:
    from metaembed.index.copying import SketchChoice
    from metaembed.index.manifest import IndexType


def shrink(
    path: Path,
    out: Path,
    *,
    budget: Budget | None = None,
    dtype: "IndexType | None" = None,
    sketch: "SketchChoice" = "keep",
) -> Index:
    """Copy an index (see `Index.copy`) with its ledger: the copy can be kept up to date as well."""
    with ExitStack() as stack:
        source = stack.enter_context(Index.open(path))
        held = stack.enter_context(closing(sqlite3.connect("")))  # a temporary file
        has_ledger = (path / FILE).exists()
        if has_ledger:
            # Before the index: what a run over the folder records meanwhile may come too late
            # for the copy, but nothing may be recorded that the copy does not have.
            with opened(path) as ledger:
                ledger.backup(held)
        copied = source.copy(out, budget=budget, dtype=dtype, sketch=sketch)
        with _removed_on_error(copied):
            if has_ledger:
                with closing(sqlite3.connect(copied.path / FILE)) as target:
                    held.backup(target)
                with closing(Ledger(copied.path)) as ledger:
                    ledger.forget_all_but(copied.ids())
        return copied


def merge(paths: Sequence[Path], out: Path, *, replace: bool = False) -> Index:
    """Copy the first index and append the items of the others (see `Index.merge`), or do nothing.

    With `replace` later items take the place of earlier ones that have their ids. What comes out
    belongs to no folder and cannot be brought up to date with one.
    """
    with ExitStack() as stack:
        first, *others = [stack.enter_context(Index.open(path)) for path in paths]
        _require_mergeable([first, *others], replace=replace)
        merged = first.copy(out)
        with _removed_on_error(merged):
            merged.merge(others, replace=replace)
            if any((path / FILE).exists() for path in paths):
                with closing(Ledger(merged.path)) as ledger:
                    for part in [first, *others]:
                        ledger.add_part(part.path)
        return merged


def _require_mergeable(indexes: Sequence[Index], *, replace: bool) -> None:
    """Find out before anything is copied."""
    first, *others = indexes
    known: set[str] = set() if replace else set(first.ids())
    for other in others:
        for field in ("dim", "groups", "fingerprint"):
            if getattr(other, field) != getattr(first, field):
                raise IndexMismatchError(
                    f"Indexes {first.path.name!r} and {other.path.name!r} differ in their {field} "
                    "and cannot be merged. Shrink them to the same budget, or use one model."
                )
        if replace:
            continue
        ids = set(other.ids())
        if common := known & ids:
            raise IndexMismatchError(
                f"Index {other.path.name!r} has {len(common):,} ids that are in the indexes before "
                f"it, for example {min(common)!r}. Replace them (--replace), or leave it out."
            )
        known |= ids


@contextmanager
def _removed_on_error(index: Index) -> Iterator[None]:
    """Leave nothing behind of an index that has just been made."""
    try:
        yield
    except BaseException:
        index.close()
        shutil.rmtree(index.path, ignore_errors=True)
        raise
