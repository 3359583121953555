"""What an index has read of its folder: files, the digest of every passage, thumbnails.

The ledger lies beside the index and is not part of its format. What changes or copies an index as
a whole, such as `repair`, has to keep the two in agreement, and is here.
"""

import hashlib
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from metaembed.budget import Budget
from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index import Index

if TYPE_CHECKING:
    from metaembed.index.copying import SketchChoice
    from metaembed.index.manifest import IndexType

FILE = "folder.sqlite"
VERSION = 2
"""Version 1 has no table `parts`."""

AGAIN = "the next `metaembed index` of the folder"

DAMAGE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""SQLite's codes for a file that is not what it was; others are of locks, disks and rights."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS files (
    source TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS passages (
    id TEXT PRIMARY KEY, source TEXT NOT NULL, digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS passages_by_source ON passages (source);
CREATE TABLE IF NOT EXISTS thumbnails (
    page TEXT PRIMARY KEY, source TEXT NOT NULL, jpeg BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (name TEXT NOT NULL);
PRAGMA user_version = {VERSION};
"""


class FileState(NamedTuple):
    """What a file looked like before it was read; `sha256` is of its content."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        status = path.stat()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(status.st_size, status.st_mtime_ns, digest)


class Ledger:
    """Remembers what was read. The index is the truth; a lost ledger only costs a new reading.

    A passage is recorded after the index has it and forgotten before the index drops it, so a
    crash in between makes a passage be encoded again, never be missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._db = sqlite3.connect(folder / FILE)
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise IndexFormatError(
                    f"{FILE} has format {version}; this version reads up to {VERSION}. "
                    "Upgrade metaembed."
                )
            if version < VERSION:
                self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise _unreadable(error) from error

    def close(self) -> None:
        self._db.close()

    def is_current(self, source: str, path: Path) -> bool:
        """Tell whether a file is as it was when it was read, by size and time or by content."""
        row = self._db.execute(
            "SELECT size, mtime_ns, sha256 FROM files WHERE source = ?", [source]
        ).fetchone()
        if row is None:
            return False
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == row[:2]:
            return True
        state = FileState.of(path)
        if state.sha256 != row[2]:
            return False
        self.finish(source, state)
        return True

    def sources(self) -> set[str]:
        rows = self._db.execute("SELECT source FROM files UNION SELECT source FROM passages")
        return {source for (source,) in rows}

    def digest(self, id: str) -> str | None:
        row = self._db.execute("SELECT digest FROM passages WHERE id = ?", [id]).fetchone()
        return None if row is None else row[0]

    def ids(self, source: str) -> set[str]:
        rows = self._db.execute("SELECT id FROM passages WHERE source = ?", [source])
        return {id for (id,) in rows}

    def record(self, passages: Iterable[tuple[str, str, str]]) -> None:
        """Remember passages as `(id, source, digest)`."""
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO passages VALUES (?, ?, ?)", passages)

    def forget(self, source: str, ids: Iterable[str]) -> None:
        """Forget passages of a file, and that it was read."""
        with self._db:
            self._db.execute("DELETE FROM files WHERE source = ?", [source])
            self._db.executemany("DELETE FROM passages WHERE id = ?", [(id,) for id in ids])

    def forget_all_but(self, ids: Iterable[str]) -> int:
        """Forget the passages that are not among `ids`, and that their files were read.

        Returns how many passages were forgotten.
        """
        gone = "FROM passages WHERE id NOT IN (SELECT id FROM temp.kept)"
        with self._db:
            self._db.execute("CREATE TEMP TABLE kept (id TEXT PRIMARY KEY) WITHOUT ROWID")
            self._db.executemany("INSERT INTO temp.kept VALUES (?)", ((id,) for id in ids))
            self._db.execute(f"DELETE FROM files WHERE source IN (SELECT source {gone})")
            forgotten = self._db.execute(f"DELETE {gone}").rowcount
            self._db.execute("DROP TABLE temp.kept")
        return forgotten

    def finish(self, source: str, state: FileState) -> None:
        """Remember that a file was read to its end."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", [source, *state])

    def put_thumbnails(self, source: str, jpegs: Mapping[str, bytes]) -> None:
        with self._db:
            self._db.execute("DELETE FROM thumbnails WHERE source = ?", [source])
            self._db.executemany(
                "INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)",
                [(page, source, jpeg) for page, jpeg in jpegs.items()],
            )

    def thumbnail(self, page: str) -> bytes | None:
        """The JPEG of a page or picture, by the id of its hit."""
        row = self._db.execute("SELECT jpeg FROM thumbnails WHERE page = ?", [page]).fetchone()
        return None if row is None else row[0]

    def parts(self) -> list[str]:
        """The names of the indexes that this one was merged from; none: it belongs to a folder."""
        return [name for (name,) in self._db.execute("SELECT name FROM parts ORDER BY rowid")]

    def add_part(self, folder: Path) -> None:
        """Remember an index that was merged into this one, and take over its thumbnails."""
        with self._db:
            self._db.execute("INSERT INTO parts VALUES (?)", [folder.name])
            if not (folder / FILE).exists():
                return
            with _opened(folder) as other:
                # The first passage of a page has its id. A part may have no thumbnails.
                pages = other.execute("SELECT id FROM passages")
                self._db.executemany("DELETE FROM thumbnails WHERE page = ?", pages)
                rows = other.execute("SELECT page, source, jpeg FROM thumbnails")
                self._db.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", rows)


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
    try:
        with Index.open(path) as index:
            return index.verify(progress=progress) or _problems(index)
    except IndexFormatError as error:
        return [str(error)]


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
            with _opened(path) as ledger:
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


def _problems(index: Index) -> list[str]:
    """Of the ledger of a sound index."""
    if not (index.path / FILE).exists():
        return []
    try:
        with _opened(index.path) as ledger:
            _require_whole(ledger)
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


class _DamagedError(IndexFormatError):
    """The file of a ledger is not what it was."""

    def __init__(self, problem: object) -> None:
        super().__init__(
            f"{FILE} of the index is damaged ({' '.join(str(problem).split())}). "
            f"`metaembed index repair` puts it aside; {AGAIN} reads everything."
        )


def _unreadable(error: sqlite3.Error) -> IndexFormatError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE:
        return _DamagedError(error)
    return IndexFormatError(f"{FILE} of the index cannot be read ({error}). Try again later.")


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """A ledger of any version as it is, to read from; also where nothing can be written."""
    try:
        uri = f"{(folder / FILE).absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise _unreadable(error) from None


def _require_whole(ledger: sqlite3.Connection) -> None:
    (found,) = ledger.execute("PRAGMA integrity_check").fetchone()
    if found != "ok":
        raise _DamagedError(found)
    ledger.execute("SELECT 1 FROM files, passages, thumbnails LIMIT 0")


def _is_damaged(folder: Path) -> bool:
    if not (folder / FILE).exists():
        return False
    try:
        with _opened(folder) as ledger:
            _require_whole(ledger)
        Ledger(folder).close()
    except _DamagedError:
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


@contextmanager
def _removed_on_error(index: Index) -> Iterator[None]:
    """Leave nothing behind of an index that has just been made."""
    try:
        yield
    except BaseException:
        index.close()
        shutil.rmtree(index.path, ignore_errors=True)
        raise
