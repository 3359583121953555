"""Which rows are live, and what they are: ids, insertion order and metadata, in SQLite.

A commit here is what makes a change to the index visible and durable; vectors are on disk before
it. Every method but the transactions themselves belongs inside `reading()` or `writing()`, and
those that change anything need version 2 of the tables: call `upgrade` first.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from metaembed.errors import one_line
from metaembed.index import legacy
from metaembed.index.columns import Value
from metaembed.index.counters import MAX_NUMBER, next_number
from metaembed.index.database import Database
from metaembed.index.disk import DamageError, damaged
from metaembed.index.filters import FIELD_VALUE, Condition, field_path
from metaembed.index.planes import File
from metaembed.index.segments import Segment
from metaembed.index.snapshot import Entry, make_entries
from metaembed.index.texts import Texts

SEQUENCE = np.dtype("<i8")
MAX_LISTED = 64
"""Numbers that a statement lists by themselves; more are passed as JSON."""

# Numbers are never reused (AUTOINCREMENT), so that what a reader remembers of a deleted segment
# or item can turn out missing but never wrong. Where an item lies follows from its sequence, so
# that a state is read without reading the items, and compaction leaves them alone.
TABLES = (
    # sequences: of each row, ascending, little-endian int64; NULL: consecutive from the first.
    """CREATE TABLE segments (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        num_rows INTEGER NOT NULL,
        first_sequence INTEGER NOT NULL,
        sequences BLOB
    )""",
    """CREATE TABLE files (
        segment INTEGER NOT NULL REFERENCES segments (number),
        name TEXT NOT NULL,
        num_bytes INTEGER NOT NULL,
        crc32 INTEGER NOT NULL,
        PRIMARY KEY (segment, name)
    )""",
    """CREATE TABLE items (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        metadata TEXT NOT NULL
    )""",
    # Rows on disk whose item is gone.
    "CREATE TABLE deleted (sequence INTEGER PRIMARY KEY)",
)

VERSION = 2
SET_VERSION = f"PRAGMA user_version = {VERSION}"

SELECT_ENTRY = "SELECT number, first_sequence, sequences IS NULL FROM segments"

Record = Sequence[Any]
"""What SQLite gives, of any type that it may hold."""


class Item(NamedTuple):
    id: str
    metadata: str
    """JSON text."""
    text: str | None = None
    """What full-text search reads."""


class Catalog:
    """The tables of `catalog.sqlite`, over one connection (see `Database`)."""

    def __init__(self, path: Path):
        self.name = path.parent.name
        self.database = Database(path, format_versions=(legacy.VERSION, VERSION))

    @classmethod
    def create(cls, path: Path) -> None:
        Database.create(path, (*TABLES, SET_VERSION))

    def close(self) -> None:
        self.database.close()

    def reading(self) -> AbstractContextManager[None]:
        return self.database.reading()

    def writing(self) -> AbstractContextManager[None]:
        return self.database.writing()

    def version(self) -> int:
        return self.database.version()

    def is_legacy(self) -> bool:
        return self.database.format_version() == legacy.VERSION

    def num_items(self) -> int:
        if self.is_legacy():
            return self._count("SELECT count(*) FROM items")
        return self._count(
            "SELECT (SELECT coalesce(sum(num_rows), 0) FROM segments)"
            " - (SELECT count(*) FROM deleted)"
        )

    def ids(self) -> list[str]:
        return [
            self._text(id)
            for (id,) in self.database.execute("SELECT id FROM items ORDER BY sequence")
        ]

    def segments(self) -> dict[int, Segment]:
        described, wrong = self.described()
        for error in wrong.values():
            raise error
        return described

    def described(self) -> tuple[dict[int, Segment], dict[int, DamageError]]:
        """The segments whose records make sense, and what is wrong with those of the others."""
        files: dict[object, list[Record]] = {}
        for segment, *file in legacy.files(self.database) if self.is_legacy() else self._files():
            files.setdefault(segment, []).append(file)
        described, wrong = {}, {}
        for row in self.database.execute("SELECT number, num_rows FROM segments ORDER BY number"):
            try:
                described[row[0]] = self._segment(row, files.get(row[0], []))
            except DamageError as error:
                wrong[row[0]] = error
        return described, wrong

    def entries(self, known: Mapping[int, Entry]) -> tuple[Entry, ...]:
        """The live rows of every segment, in the order of their sequences.

        `known` are those of an earlier state, by segment number, and spare reading them again.
        """
        segments = self.segments()
        if self.is_legacy():
            return legacy.entries(self.database, self.name, segments)
        found = self.database.execute(f"{SELECT_ENTRY} ORDER BY first_sequence").fetchall()
        placed = [self._entry(segments[row[0]], row, known.get(row[0])) for row in found]
        return make_entries(self.name, placed, self.deleted(), known)

    def segment_numbers(self) -> list[int]:
        """Also of segments that are not well described; in the order of their sequences."""
        found = self.database.execute("SELECT number FROM segments ORDER BY first_sequence, number")
        return [number for (number,) in found]

    def entry(self, number: int) -> Entry:
        """One segment with all its rows, whatever the others are like."""
        row = self.database.execute(
            "SELECT number, num_rows FROM segments WHERE number = ?", number
        ).fetchone()
        files = self.database.execute(
            "SELECT name, num_bytes, crc32 FROM files WHERE segment = ? ORDER BY name", number
        )
        segment = self._segment(row, files)
        place = self.database.execute(f"{SELECT_ENTRY} WHERE number = ?", number).fetchone()
        return self._entry(segment, place, None)

    def neighbours(self, numbers: Sequence[int]) -> tuple[Entry, ...]:
        """The live rows of some segments that follow each other, in that order."""
        placed = [self.entry(number) for number in numbers]
        if not placed:
            return ()
        found = self.database.execute(
            "SELECT sequence FROM deleted WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
            placed[0].first_sequence,
            placed[-1].last_sequence,
        )
        dead = np.fromiter((sequence for (sequence,) in found), dtype=np.int64)
        return make_entries(self.name, placed, dead, {})

    def deleted(self) -> Int[np.ndarray, " n"]:
        found = self.database.execute("SELECT sequence FROM deleted ORDER BY sequence")
        return np.fromiter((sequence for (sequence,) in found), dtype=np.int64)

    def ends(self) -> Int[np.ndarray, " n"]:
        """The sequences of the first and the last item, if there is any."""
        found = self.database.execute(  # in two queries, or SQLite reads the whole table
            "SELECT (SELECT min(sequence) FROM items), (SELECT max(sequence) FROM items)"
        ).fetchone()
        return np.array([sequence for sequence in found if sequence is not None], np.int64)

    def sequences_of(self, ids: Collection[str]) -> tuple[list[str], Int[np.ndarray, " n"]]:
        """The ids that exist and their sequences, in insertion order."""
        found = self.database.execute(
            "SELECT id, sequence FROM items "
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY sequence",
            json.dumps(list(ids)),
        ).fetchall()
        return [id for id, _ in found], np.array([sequence for _, sequence in found], np.int64)

    def matching(self, condition: Condition) -> Int[np.ndarray, " n"]:
        """The sequence numbers of the items that pass a filter, ascending."""
        found = self.database.execute(
            f"SELECT sequence FROM items WHERE {condition.sql} ORDER BY sequence",
            *condition.parameters,
        )
        return np.fromiter((sequence for (sequence,) in found), dtype=np.int64)

    def field_values(self, field: str, after: int) -> Iterator[tuple[int, Value]]:
        """What the items with a greater sequence hold under a name, as `FIELD_VALUE` says."""
        yield from self.database.execute(
            f"SELECT sequence, {FIELD_VALUE} FROM items WHERE sequence > ?2 ORDER BY sequence",
            field_path(field),
            after,
        )

    def item_sequences(self) -> Int[np.ndarray, " n"]:
        """Of all items, ascending."""
        found = self.database.execute("SELECT sequence FROM items ORDER BY sequence")
        return np.fromiter((sequence for (sequence,) in found), dtype=np.int64)

    def items(self, sequences: Collection[int]) -> dict[int, Item]:
        few = len(sequences) <= MAX_LISTED
        these = ", ".join("?" * len(sequences)) if few else "SELECT value FROM json_each(?)"
        found = self.database.execute(
            f"SELECT sequence, id, metadata FROM items WHERE sequence IN ({these})",
            *(sequences if few else [json.dumps(list(sequences))]),
        )
        return {sequence: Item(self._text(id), metadata) for sequence, id, metadata in found}

    def all_items(self) -> Iterator[tuple[int, Item]]:
        """Every item with its sequence, in insertion order; consume it inside the transaction."""
        found = self.database.execute("SELECT sequence, id, metadata FROM items ORDER BY sequence")
        for sequence, id, metadata in found:
            yield sequence, Item(self._text(id), metadata)

    def texts(self) -> Texts:
        """Of the items, where they have any."""
        return Texts(self.database, name=self.name)

    def metadata_of(self, ids: Collection[str]) -> dict[str, str]:
        """The metadata of those ids that exist, as JSON texts."""
        found = self.database.execute(
            "SELECT id, metadata FROM items WHERE id IN (SELECT value FROM json_each(?))",
            json.dumps(list(ids)),
        )
        return dict(found.fetchall())

    def upgrade(self) -> None:
        """Bring the tables of version 1 to this version; nothing where they have it."""
        if self.is_legacy():
            entries = legacy.entries(self.database, self.name, self.segments())
            counters = legacy.take_apart(self.database)
            for statement in TABLES:
                self.database.execute(statement)
            for entry in entries:
                self.add_segment(entry.segment, entry.first_sequence, entry.sequences)
                self.add_deleted(entry.sequences_of(entry.dead))
            legacy.put_together(self.database, counters)
            self.database.execute(SET_VERSION)

    def next_segment(self) -> int:
        return next_number(self.database, "segments", name=self.name)

    def next_sequence(self) -> int:
        return next_number(self.database, "items", name=self.name)

    def add_segment(
        self, segment: Segment, first_sequence: int, sequences: Int[np.ndarray, " n"] | None
    ) -> None:
        """Name a segment; `sequences` None: consecutive from the first."""
        self._require_room(segment, first_sequence)
        self.database.execute(
            "INSERT INTO segments VALUES (?, ?, ?, ?)",
            segment.number,
            segment.num_rows,
            first_sequence,
            None if sequences is None else sequences.astype(SEQUENCE).tobytes(),
        )
        self.database.execute_many(
            "INSERT INTO files VALUES (?, ?, ?, ?)",
            ((segment.number, *file) for file in segment.files),
        )

    def add_items(self, first_sequence: int, items: Sequence[Item]) -> None:
        self.database.execute_many(
            "INSERT INTO items VALUES (?, ?, ?)",
            (
                (sequence, item.id, item.metadata)
                for sequence, item in enumerate(items, start=first_sequence)
            ),
        )
        self.add_texts(
            (sequence, item.text) for sequence, item in enumerate(items, start=first_sequence)
        )

    def add_texts(self, texts: Iterable[tuple[int, str | None]]) -> None:
        given = [(sequence, text) for sequence, text in texts if text is not None]
        if given:
            self.texts().add(given)

    def remove_items(self, ids: Collection[str]) -> int:
        chosen = "id IN (SELECT value FROM json_each(?))"
        return self.remove_items_where(chosen, json.dumps(list(ids)))

    def remove_items_where(self, chosen: str, *parameters: str) -> int:
        """Remove the items that some SQL chooses; their rows are left over."""
        self.texts().remove_where(f"SELECT sequence FROM items WHERE {chosen}", *parameters)
        self.database.execute(
            f"INSERT INTO deleted SELECT sequence FROM items WHERE {chosen}", *parameters
        )
        return self.database.execute(f"DELETE FROM items WHERE {chosen}", *parameters).rowcount

    def add_deleted(self, sequences: Int[np.ndarray, " n"]) -> None:
        self.database.execute_many(
            "INSERT INTO deleted VALUES (?)", ((one,) for one in sequences.tolist())
        )

    def remove_segments(self, entries: Iterable[Entry]) -> None:
        """Forget segments, and with them the rows whose items are gone; the items stay."""
        for entry in entries:
            number, ends = entry.segment.number, (entry.first_sequence, entry.last_sequence)
            self.database.execute("DELETE FROM files WHERE segment = ?", number)
            self.database.execute("DELETE FROM segments WHERE number = ?", number)
            self.database.execute("DELETE FROM deleted WHERE sequence BETWEEN ? AND ?", *ends)

    def _segment(self, row: Record, files: Iterable[Record]) -> Segment:
        number, num_rows = self._integers(row)
        if number >= MAX_NUMBER:
            raise damaged(self.name, f"a segment has number {number}")
        if num_rows < 1:
            raise damaged(self.name, f"segment {number} has {num_rows} rows")
        made = [File(self._text(name, "a name"), *self._integers(rest)) for name, *rest in files]
        return Segment(number, num_rows, tuple(made))

    def _entry(self, segment: Segment, row: Record, old: Entry | None) -> Entry:
        """All rows of a segment; `old` is an earlier state of it."""
        _, first, is_gapless = self._integers(row)
        self._require_room(segment, first)
        if is_gapless:
            return Entry.of(segment, first, None)
        known = None if old is None else old.sequences
        return Entry.of(segment, first, self._sequences(segment, first) if known is None else known)

    def _files(self) -> Iterable[Record]:
        return self.database.execute(
            "SELECT segment, name, num_bytes, crc32 FROM files ORDER BY segment, name"
        )

    def _sequences(self, segment: Segment, first: int) -> Int[np.ndarray, " num_rows"]:
        found = self.database.execute(
            "SELECT sequences FROM segments WHERE number = ?", segment.number
        )
        (content,) = found.fetchone()
        if not isinstance(content, bytes) or len(content) != segment.num_rows * SEQUENCE.itemsize:
            raise damaged(self.name, f"the items of segment {segment.number} are not listed")
        sequences = np.frombuffer(content, SEQUENCE)
        if sequences[0] != first or sequences[-1] >= MAX_NUMBER or (np.diff(sequences) <= 0).any():
            raise damaged(self.name, f"the items of segment {segment.number} are not in order")
        return sequences

    def _require_room(self, segment: Segment, first: int) -> None:
        """Sequences stay below the largest that there may be."""
        if not 0 < first <= MAX_NUMBER - segment.num_rows:
            raise damaged(self.name, f"segment {segment.number} begins with item {first}")

    def _count(self, sql: str) -> int:
        return self._integers(self.database.execute(sql).fetchone())[0]

    def _integers(self, row: Record) -> list[int]:
        numbers = [value for value in row if isinstance(value, int) and value >= 0]
        if len(numbers) != len(row):
            shown = one_line(tuple(row), limit=100)
            raise damaged(self.name, f"{shown} is not a record of sizes")
        return numbers

    def _text(self, value: object, what: str = "an id") -> str:
        if not isinstance(value, str):
            raise damaged(self.name, f"{what} is not a text")
        return value
