"""What an index has read of its folder: files, the digest of every passage, thumbnails."""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from metaembed.errors import IndexFormatError
from metaembed.ledger.file import FILE, SCHEMA, VERSION, opened, unreadable


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
                self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise unreadable(error) from error

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
            with opened(folder) as other:
                # The first passage of a page has its id. A part may have no thumbnails.
                pages = other.execute("SELECT id FROM passages")
                self._db.executemany("DELETE FROM thumbnails WHERE page = ?", pages)
                rows = other.execute("SELECT page, source, jpeg FROM thumbnails")
                self._db.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", rows)
