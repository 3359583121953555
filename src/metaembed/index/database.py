"""One SQLite connection: short transactions, several threads, one-line errors.

SQLite keeps its default rollback journal rather than WAL: between commits the catalog is then a
single file, which can be copied and which opens from a folder without write permission, whereas
WAL needs its `-shm` file written even by a reader. What is given up is that readers and a commit
wait for each other, for the milliseconds that either takes.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from metaembed.errors import IndexFormatError, one_line
from metaembed.index.disk import beyond_repair, damaged, found_at, require_plain, translated

BUSY_SECONDS = 30.0
"""How long a commit waits for readers and a reader for a commit; each holds its lock briefly."""

MAX_QUOTED = 200
"""Characters of what SQLite says, which may be all of a text that it cannot read."""

Value = str | int | bytes | None

ENVIRONMENT_ERRORS = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_TOOBIG,
}
"""What the machine does to a sound file."""

REPAIRABLE_ERRORS = {0, sqlite3.SQLITE_CORRUPT_VTAB}
"""Of an item, whose text is not UTF-8, or of full-text search; 0: Python, and not SQLite, says it.
"""


class Database:
    """A connection to an existing file. Threads may share it; forked processes may not.

    Everything happens inside `reading()` or `writing()`, which also turn the errors of SQLite and
    of the operating system into `IndexFormatError`.
    """

    def __init__(self, path: Path, *, format_versions: Collection[int]):
        self._name = path.parent.name
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        if found_at(path, of=self._name) is None:
            raise beyond_repair(self._name, f"{path.name} is missing")
        for suffix in ("", "-journal", "-wal", "-shm"):
            require_plain(path.with_name(path.name + suffix), of=self._name)
        with self._translated():
            # Opened for writing even to read: a reader then completes the rollback of a writer
            # that crashed. SQLite falls back to reading where it may not write.
            self._connection = sqlite3.connect(
                f"{path.as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._prepare(self._connection, format_versions)
            except BaseException:
                self.close()
                raise

    def _prepare(self, connection: sqlite3.Connection, format_versions: Collection[int]) -> None:
        # The deleted journal is part of a commit: sync its folder too.
        connection.execute("PRAGMA synchronous = EXTRA")
        # The file may come from elsewhere; its schema must not call functions.
        connection.execute("PRAGMA trusted_schema = OFF")
        version = self.format_version()
        if version > max(format_versions):
            raise IndexFormatError(
                f"Index {self._name!r} has a catalog of format version {version} and this "
                f"metaembed reads up to {max(format_versions)}. Upgrade metaembed."
            )
        if version not in format_versions:
            raise beyond_repair(self._name, f"its catalog has format version {version}")

    @classmethod
    def create(cls, path: Path, schema: Iterable[str]) -> None:
        """Make a new file with this schema, or none at all."""
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            for statement in schema:
                connection.execute(statement)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise IndexFormatError(
                f"Index {path.parent.name!r} cannot be created: {error}. Choose another path."
            ) from None
        finally:
            connection.close()

    def close(self) -> None:
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def require_open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise IndexFormatError(f"Index {self._name!r} is closed. Open it again to use it.")
        return self._connection

    def reading(self) -> AbstractContextManager[None]:
        """See one state of the file throughout; commits of other connections wait."""
        return self._transaction("BEGIN", is_writing=False)

    def writing(self) -> AbstractContextManager[None]:
        """Commit at the end of the block, or change nothing when it raises."""
        return self._transaction("BEGIN IMMEDIATE", is_writing=True)

    def execute(self, sql: str, *parameters: Value) -> sqlite3.Cursor:
        return self.require_open().execute(sql, parameters)

    def execute_many(self, sql: str, parameters: Iterable[Sequence[Value]]) -> None:
        self.require_open().executemany(sql, parameters)

    def version(self) -> int:
        """A number that changes whenever another connection has committed."""
        return int(self.execute("PRAGMA data_version").fetchone()[0])

    def format_version(self) -> int:
        """It changes when another process upgrades the file."""
        return int(self.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _transaction(self, begin: str, *, is_writing: bool) -> Iterator[None]:
        with self._mutex, translated(self._name, is_writing=is_writing), self._translated():
            connection = self.require_open()
            is_inner = connection.in_transaction
            if is_inner:  # the outer block decides
                yield
                return
            connection.execute(begin)
            try:
                yield
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # ours
        except sqlite3.Error as error:
            raise self._translation(error) from None

    def _translation(self, error: sqlite3.Error) -> IndexFormatError:
        code = getattr(error, "sqlite_errorcode", 0)
        problem = one_line(error, limit=MAX_QUOTED)
        if code == sqlite3.SQLITE_READONLY_ROLLBACK:
            return IndexFormatError(
                f"Index {self._name!r} was left in the middle of a commit. "
                "Open it once with write permission to its folder."
            )
        match code & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return IndexFormatError(
                    f"Index {self._name!r} is busy: another process has held its catalog for "
                    f"{BUSY_SECONDS:.0f} seconds. Try again later."
                )
            case code if code in ENVIRONMENT_ERRORS:
                return IndexFormatError(
                    f"The catalog of index {self._name!r} cannot be used: {problem}. "
                    "Check the permissions and the free space."
                )
        made = damaged if code in REPAIRABLE_ERRORS else beyond_repair
        return made(self._name, f"catalog.sqlite cannot be read ({problem})")
