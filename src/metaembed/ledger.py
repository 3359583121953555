"""What an index has read of its folder: files, the digest of every passage, thumbnails."""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from metaembed.errors import IndexFormatError

FILE = "folder.sqlite"
VERSION = 1

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
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise IndexFormatError(
                f"{FILE} of the index cannot be read ({error}); delete that file and index the "
                "folder again."
            ) from error

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
