"""Whether full-text search knows the words of the texts as they are, and teaching it anew.

SQLite's own integrity check looks at the tables of FTS5 as tables only. FTS5 has one that compares
the words with the texts, but it needs the right to write; so it is run on a temporary copy of
what FTS5 knows, which also leaves other writers alone.
"""

import sqlite3

from metaembed.errors import one_line
from metaembed.index.database import ENVIRONMENT_ERRORS, Database
from metaembed.index.records import is_plain_text

# English word endings are ignored, and marks belong to their letters, without which Indic and
# Thai words fall apart. BM25 needs the positions and lengths that `detail` and `columnsize` keep.
TOKENIZER = """tokenize = "porter unicode61 remove_diacritics 2 categories 'L* N* Co M*'\""""
SCHEMA = f"CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5(text, {TOKENIZER})"

KNOWN = ("data", "idx", "docsize")
"""The tables in which FTS5 keeps what it knows; `content` has the texts, as they are given."""
TABLES = (*KNOWN, "config", "content")

COPY = f"""CREATE VIRTUAL TABLE temp.texts_copy USING fts5(
    text, content = 'texts_read', content_rowid = 'id', {TOKENIZER}
)"""


def wordlist_problem(database: Database) -> str | None:
    """Say what is wrong with a table `texts` that is there; call it inside a transaction."""
    try:
        # Opens the table, which looks at its settings and at the root of its words.
        database.execute("SELECT rowid FROM texts WHERE texts MATCH 'x' LIMIT 1").fetchall()
        _check_copy(database)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in ENVIRONMENT_ERRORS or "no such module" in str(error):
            raise
        return f"full-text search does not know its texts ({one_line(error, limit=200)})"
    return None


def remake(database: Database) -> int:
    """Make the table `texts` again from the texts that can be read; returns how many cannot."""
    database.execute("CREATE TEMP TABLE texts_kept (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    num_lost = _keep_readable(database)
    _drop(database)
    database.execute(SCHEMA)
    database.execute("INSERT INTO texts (rowid, text) SELECT id, text FROM temp.texts_kept")
    database.execute("DROP TABLE temp.texts_kept")
    return num_lost


def _check_copy(database: Database) -> None:
    database.execute("CREATE TEMP VIEW texts_read AS SELECT id, c0 AS text FROM main.texts_content")
    try:
        database.execute(COPY)
        try:
            for table in KNOWN:
                database.execute(f"DELETE FROM temp.texts_copy_{table}")
                copy = f"INSERT INTO temp.texts_copy_{table} SELECT * FROM main.texts_{table}"
                database.execute(copy)
            check = "INSERT INTO temp.texts_copy (texts_copy, rank) VALUES ('integrity-check', 1)"
            database.execute(check)
        finally:
            database.execute("DROP TABLE temp.texts_copy")
    finally:
        database.execute("DROP VIEW temp.texts_read")


def _keep_readable(database: Database) -> int:
    try:
        found = database.execute(
            "SELECT id, CAST(c0 AS BLOB), typeof(c0) = 'text' FROM main.texts_content"
        )
    except sqlite3.OperationalError:  # the texts themselves are gone, and their number with them
        return 0
    num_lost = 0
    for id, content, is_text in found:
        text = _decoded(content) if is_text else None
        if text is None:
            num_lost += 1
        else:
            database.execute("INSERT INTO temp.texts_kept VALUES (?, ?)", id, text)
    return num_lost


def _decoded(content: bytes) -> str | None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if is_plain_text(text) else None


def _drop(database: Database) -> None:
    """Drop the table, also where FTS5 cannot open it."""
    try:
        database.execute("DROP TABLE texts")
    except sqlite3.DatabaseError:
        database.execute("PRAGMA writable_schema = ON")
        try:
            database.execute("DELETE FROM sqlite_master WHERE name = 'texts'")
        finally:
            database.execute("PRAGMA writable_schema = RESET")
    for table in TABLES:
        database.execute(f"DROP TABLE IF EXISTS texts_{table}")
