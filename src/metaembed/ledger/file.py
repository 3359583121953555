"""The file of a ledger: its name, its tables, and what can be wrong with it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from metaembed.errors import IndexFormatError

FILE = "folder.sqlite"
VERSION = 2
"""Version 1 has no table `parts`."""

AGAIN = "the next `metaembed index` of the folder"

DAMAGE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""SQLite's codes for a file that is not what it was; others are of locks, disks and rights."""

SCHEMA = f"""
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


class DamagedError(IndexFormatError):
    """The file of a ledger is not what it was."""

    def __init__(self, problem: object) -> None:
        super().__init__(
            f"{FILE} of the index is damaged ({' '.join(str(problem).split())}). "
            f"`metaembed index repair` puts it aside; {AGAIN} reads everything."
        )


def unreadable(error: sqlite3.Error) -> IndexFormatError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE:
        return DamagedError(error)
    return IndexFormatError(f"{FILE} of the index cannot be read ({error}). Try again later.")


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """A ledger of any version as it is, to read from; also where nothing can be written."""
    try:
        uri = f"{(folder / FILE).absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise unreadable(error) from None


def require_whole(ledger: sqlite3.Connection) -> None:
    (found,) = ledger.execute("PRAGMA integrity_check").fetchone()
    if found != "ok":
        raise DamagedError(found)
    ledger.execute("SELECT 1 FROM files, passages, thumbnails LIMIT 0")
