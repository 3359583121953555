"""Keeping what is sound of a damaged index.

Nothing is guessed: what an item was, or which vectors were its own, is never made up. And nothing
is destroyed: damaged files, and the catalog as it was, go to a folder of their own.
"""

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metaembed.errors import IndexFormatError
from metaembed.index import legacy
from metaembed.index.catalog import Catalog
from metaembed.index.checks import integrity_problem
from metaembed.index.counters import reset_counters
from metaembed.index.disk import problem_line, sync_file, sync_folder, write_lock
from metaembed.index.folder import CATALOG, LOCK, MANIFEST, SEGMENTS
from metaembed.index.manifest import read_manifest
from metaembed.index.records import decode_metadata, is_id
from metaembed.index.segments import Segments
from metaembed.index.snapshot import Entry, Snapshot, make_entries

DAMAGED = "damaged"

NO_VECTORS = "no sound segment has their vectors"


class Repair(NamedTuple):
    """What a repair did."""

    lines: tuple[str, ...]
    """Each a sentence; empty: there was nothing to repair."""
    lost: tuple[str, ...]
    """The ids of items that are gone."""


def repair(path: Path) -> Repair:
    """See `Index.repair`."""
    manifest = read_manifest(path / MANIFEST)
    with write_lock(path / LOCK, of=path.name), closing(Catalog(path / CATALOG)) as catalog:
        work = _Work(path, catalog)
        (path / SEGMENTS).mkdir(exist_ok=True)
        with work.copy_of_catalog(), catalog.writing():
            work.remake_words()
            work.require_readable()
            work.keep_segments(Segments(path / SEGMENTS, manifest))
            work.upgrade()
            work.reset_counters()
            entries = work.entries()
            work.keep_items(entries)
            work.mark_deleted(entries)
            work.move_given_up()
        work.remove_strays(entries)
    return Repair(tuple(work.lines), tuple(work.lost))


class _Work:
    """One repair, in steps that follow each other."""

    def __init__(self, path: Path, catalog: Catalog):
        self._path = path
        self._catalog = catalog
        self._database = catalog.database
        self._given_up: list[int] = []
        self.lines: list[str] = []
        self.lost: list[str] = []

    @contextmanager
    def copy_of_catalog(self) -> Iterator[None]:
        """Keep the catalog as it was, with the ids and metadata of what is lost, if anything is."""
        folder = self._path / DAMAGED
        had_folder = folder.exists()
        folder.mkdir(exist_ok=True)
        copy = _free_name(folder, CATALOG)
        is_changed = False
        try:
            with self._catalog.reading():  # what a crashed writer left is rolled back now
                self._catalog.version()
                shutil.copyfile(self._path / CATALOG, copy)
                sync_file(copy)
                sync_folder(folder)
                sync_folder(self._path)
            yield
            is_changed = bool(self.lines)
        finally:
            if not is_changed:
                copy.unlink(missing_ok=True)
                if not had_folder:
                    folder.rmdir()
        if is_changed:
            self.lines.append(f"The catalog as it was is in {DAMAGED}/{copy.name}.")

    def remake_words(self) -> None:
        """Before anything is removed, which full-text search has to be sound for."""
        texts = self._catalog.texts()
        if texts.problem() is not None:
            lost = texts.remake()
            self.lines.append("Full-text search did not know its texts; it has read them anew.")
            if lost:
                self.lines.append(f"{lost} texts cannot be read and are lost; their items are not.")

    def require_readable(self) -> None:
        if problem := integrity_problem(self._catalog):
            raise self._beyond_repair(problem)

    def upgrade(self) -> None:
        """Bring the catalog to this version, without items that version 1 puts in no row."""
        if self._catalog.is_legacy():
            homeless = [one for (one,) in self._database.execute(legacy.IN_NO_SEGMENT)]
            self._lose(homeless, NO_VECTORS)
            for problem, query in legacy.PROBLEMS.items():
                self._lose([one for (one,) in self._database.execute(query)], problem)
            self._catalog.upgrade()

    def keep_segments(self, segments: Segments) -> None:
        """Give up those with a problem; how many rows one has is believed after its files."""
        described, wrong = self._catalog.described()
        name = self._path.name
        problems = {number: [problem_line(name, error)] for number, error in wrong.items()}
        problems |= {number: segments.problems(one) for number, one in described.items()}
        for number in sorted(problems):
            if not problems[number] and not self._catalog.is_legacy():
                try:
                    self._catalog.entry(number)
                except IndexFormatError as error:
                    problems[number] = [problem_line(name, error)]
            if problems[number]:
                self._give_up(number, problems[number][0])

    def reset_counters(self) -> None:
        last = max(self._given_up, default=0)
        for counter in reset_counters(self._database, last_segment=last):
            self.lines.append(f"The number of the last of the {counter} was wrong.")

    def entries(self) -> tuple[Entry, ...]:
        """The segments that are left, with all their rows."""
        kept = [self._catalog.entry(number) for number in self._catalog.segment_numbers()]
        try:
            return make_entries(self._path.name, kept, np.empty(0, np.int64), {})
        except IndexFormatError as error:
            raise self._beyond_repair(str(error)) from None

    def keep_items(self, entries: Sequence[Entry]) -> None:
        """Remove items that have no row, and those that cannot be read."""
        items = self._catalog.item_sequences()
        lost = np.setdiff1d(items, _sequences(entries), assume_unique=True)
        self._lose(lost.tolist(), NO_VECTORS)
        self._lose(self._unreadable_items(), "their id or metadata cannot be read")
        texts = self._catalog.texts()
        strays = np.setdiff1d(texts.sequences(), self._catalog.item_sequences(), assume_unique=True)
        if len(strays):
            texts.remove(strays.tolist())
            self.lines.append(f"{len(strays)} texts had no item.")

    def mark_deleted(self, entries: Sequence[Entry]) -> None:
        """Make the rows without an item, and no others, count as deleted."""
        rows, items = _sequences(entries), self._catalog.item_sequences()
        right = np.setdiff1d(rows, items, assume_unique=True)
        recorded = self._catalog.deleted()
        if not np.array_equal(right, recorded):
            self._database.execute("DELETE FROM deleted")
            self._catalog.add_deleted(right)
            self.lines.append(
                f"{len(right)} rows on disk have no item; {len(recorded)} were marked as deleted."
            )

    def move_given_up(self) -> None:
        """Put the files of lost segments aside: the last step before the catalog forgets them."""
        for number in self._given_up:
            folder = self._path / SEGMENTS / str(number)
            if folder.exists():
                target = _free_name(self._path / DAMAGED, str(number))
                folder.rename(target)
                self.lines.append(
                    f"What is left of segment {number} is in {DAMAGED}/{target.name}."
                )
        sync_folder(self._path / DAMAGED)
        sync_folder(self._path / SEGMENTS)

    def remove_strays(self, entries: Sequence[Entry]) -> None:
        """Delete what crashed writers left: files and segments that the catalog does not name."""
        folder = self._path / SEGMENTS
        expected = {
            str(entry.segment.number): {file.name for file in entry.segment.files}
            for entry in entries
        }
        strays = [path for path in [self._path / f"{MANIFEST}.tmp"] if path.exists()]
        for path in folder.iterdir():
            if path.name in expected:
                strays += [file for file in path.iterdir() if file.name not in expected[path.name]]
            elif path.name.isascii() and path.name.isdecimal():
                strays.append(path)
        for path in strays:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if strays:
            names = ", ".join(sorted(str(path.relative_to(self._path)) for path in strays))
            self.lines.append(f"Deleted what belongs to nothing: {names}.")

    def _give_up(self, number: int, problem: str) -> None:
        self._given_up.append(number)
        files = "planes" if self._catalog.is_legacy() else "files"
        for table, column in ((files, "segment"), ("segments", "number")):
            self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", number)
        self.lines.append(f"Segment {number} is given up. {problem}")

    def _lose(self, sequences: list[int], problem: str) -> None:
        """Remove items and say why."""
        if not sequences:
            return
        chosen, listed = "sequence IN (SELECT value FROM json_each(?))", json.dumps(sequences)
        found = self._database.execute(
            f"SELECT CAST(id AS BLOB) FROM items WHERE {chosen} ORDER BY sequence", listed
        )
        self.lost += [id.decode("utf-8", "replace") for (id,) in found]
        self._database.execute(f"DELETE FROM items WHERE {chosen}", listed)
        self._catalog.texts().remove(sequences)
        self.lines.append(f"{len(sequences)} items are lost: {problem}.")

    def _unreadable_items(self) -> list[int]:
        found = self._database.execute(
            "SELECT sequence, CAST(id AS BLOB), CAST(metadata AS BLOB), "
            "typeof(id) = 'text' AND typeof(metadata) = 'text' FROM items"
        )
        return [
            sequence
            for sequence, id, metadata, is_text in found
            if not is_text or not _is_readable(id, metadata)
        ]

    def _beyond_repair(self, problem: str) -> IndexFormatError:
        return IndexFormatError(
            f"The catalog of index {self._path.name!r} is beyond repair: {problem}. "
            f"Restore {CATALOG} from a copy, or rebuild the index."
        )


def _is_readable(id: bytes, metadata: bytes) -> bool:
    try:
        decode_metadata(metadata.decode())
        return is_id(id.decode())
    except (UnicodeDecodeError, IndexFormatError):
        return False


def _sequences(entries: Sequence[Entry]) -> Int[np.ndarray, " n"]:
    """Of all rows."""
    return Snapshot("", 0, tuple(entries)).sequences


def _free_name(folder: Path, name: str) -> Path:
    """A path that nothing has, since an earlier repair may have been cut short."""
    numbered = (folder / f"{name}-{number}" for number in itertools.count(2))
    return next(path for path in itertools.chain([folder / name], numbered) if not path.exists())
