"""Which rows are live, and what they are: ids, insertion order and metadata, in SQLite.

A commit here is what makes a change to the index visible and durable; vectors are on disk before
it. Every method but the transactions themselves belongs inside `reading()` or `writing()`.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metaembed.index.database import Database
from metaembed.index.disk import damaged
from metaembed.index.filters import Condition
from metaembed.index.manifest import FORMAT_VERSION
from metaembed.index.segments import Plane, Rows, Segment

# Numbers are never reused (AUTOINCREMENT), so that what a reader remembers of a deleted segment
# or item can turn out missing but never wrong.
SCHEMA = (
    """CREATE TABLE segments (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        num_rows INTEGER NOT NULL
    )""",
    """CREATE TABLE planes (
        segment INTEGER NOT NULL REFERENCES segments (number),
        start INTEGER NOT NULL,
        stop INTEGER NOT NULL,
        num_bytes INTEGER NOT NULL,
        crc32 INTEGER NOT NULL,
        PRIMARY KEY (segment, start)
    )""",
    """CREATE TABLE items (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        segment INTEGER NOT NULL REFERENCES segments (number),
        row INTEGER NOT NULL,
        metadata TEXT NOT NULL
    )""",
    f"PRAGMA user_version = {FORMAT_VERSION}",
)

PROBLEMS = {
    "an item lies outside its segment": """
        SELECT 1 FROM items LEFT JOIN segments ON segment = number
        WHERE number IS NULL OR typeof(row) <> 'integer' OR row < 0 OR row >= num_rows""",
    "two items share a row": "SELECT 1 FROM items GROUP BY segment, row HAVING count(*) > 1",
    "the metadata of an item is not JSON": "SELECT 1 FROM items WHERE NOT json_valid(metadata)",
}
"""Queries that find nothing in a sound catalog."""


class Item(NamedTuple):
    id: str
    metadata: str
    """JSON text."""


class Catalog:
    """The tables of `catalog.sqlite`, over one connection (see `Database`)."""

    def __init__(self, path: Path):
        self._name = path.parent.name
        self._database = Database(path, format_version=FORMAT_VERSION)

    @classmethod
    def create(cls, path: Path) -> None:
        Database.create(path, SCHEMA)

    def close(self) -> None:
        self._database.close()

    def reading(self) -> AbstractContextManager[None]:
        return self._database.reading()

    def writing(self) -> AbstractContextManager[None]:
        return self._database.writing()

    def version(self) -> int:
        return self._database.version()

    def num_items(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM items").fetchone()[0])

    def ids(self) -> list[str]:
        return [
            self._text(id)
            for (id,) in self._database.execute("SELECT id FROM items ORDER BY sequence")
        ]

    def segments(self) -> dict[int, Segment]:
        planes: dict[int, list[Plane]] = {}
        for row in self._database.execute("SELECT * FROM planes ORDER BY segment, start"):
            number, *plane = self._integers(row)
            planes.setdefault(number, []).append(Plane(*plane))
        segments = {}
        for row in self._database.execute("SELECT number, num_rows FROM segments ORDER BY number"):
            number, num_rows = self._integers(row)
            if num_rows < 1:
                raise damaged(self._name, f"segment {number} has {num_rows} rows")
            segments[number] = Segment(number, num_rows, tuple(planes.get(number, ())))
        return segments

    def rows(self) -> Rows:
        found = self._database.execute("SELECT sequence, segment, row FROM items ORDER BY sequence")
        return self._as_rows(found.fetchall())

    def rows_of(self, ids: Collection[str]) -> tuple[list[str], Rows]:
        """Locate the items with these ids; returns the ids that exist, in insertion order."""
        found = self._database.execute(
            "SELECT sequence, segment, row, id FROM items "
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY sequence",
            json.dumps(list(ids)),
        )
        records = found.fetchall()
        return [record[3] for record in records], self._as_rows([r[:3] for r in records])

    def matching(self, condition: Condition) -> Int[np.ndarray, " n"]:
        """The sequence numbers of the items that pass a filter, ascending."""
        found = self._database.execute(
            f"SELECT sequence FROM items WHERE {condition.sql} ORDER BY sequence",
            *condition.parameters,
        )
        return np.array([sequence for (sequence,) in found], dtype=np.int64)

    def items(self, sequences: Collection[int]) -> dict[int, Item]:
        found = self._database.execute(
            "SELECT sequence, id, metadata FROM items "
            "WHERE sequence IN (SELECT value FROM json_each(?))",
            json.dumps(list(sequences)),
        )
        return {sequence: Item(self._text(id), metadata) for sequence, id, metadata in found}

    def metadata_of(self, ids: Collection[str]) -> dict[str, str]:
        """The metadata of those ids that exist, as JSON texts."""
        found = self._database.execute(
            "SELECT id, metadata FROM items WHERE id IN (SELECT value FROM json_each(?))",
            json.dumps(list(ids)),
        )
        return dict(found.fetchall())

    def problems(self) -> list[str]:
        """Read the whole catalog and describe what is wrong with it."""
        found = self._database.execute("PRAGMA integrity_check").fetchone()[0]
        problems = [] if found == "ok" else [f"SQLite finds {' '.join(str(found).split())}"]
        for problem, query in PROBLEMS.items():
            if self._database.execute(f"{query} LIMIT 1").fetchone() is not None:
                problems.append(problem)
        return [f"Index {self._name!r}: {problem} (catalog.sqlite)." for problem in problems]

    def next_segment(self) -> int:
        found = self._database.execute(
            """SELECT 1 + max(
                coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'segments'), 0),
                coalesce((SELECT max(number) FROM segments), 0))"""
        )
        return self._integers(found.fetchone())[0]

    def add_segment(self, segment: Segment) -> None:
        self._database.execute(
            "INSERT INTO segments VALUES (?, ?)", segment.number, segment.num_rows
        )
        for plane in segment.planes:
            self._database.execute(
                "INSERT INTO planes VALUES (?, ?, ?, ?, ?)", segment.number, *plane
            )

    def add_items(self, segment: int, items: Iterable[Item]) -> None:
        """Append items; the first lies in row 0 of the segment, and so on."""
        self._database.execute_many(
            "INSERT INTO items (id, segment, row, metadata) VALUES (?, ?, ?, ?)",
            ((item.id, segment, row, item.metadata) for row, item in enumerate(items)),
        )

    def remove_items(self, ids: Collection[str]) -> int:
        removed = self._database.execute(
            "DELETE FROM items WHERE id IN (SELECT value FROM json_each(?))", json.dumps(list(ids))
        )
        return removed.rowcount

    def move_items(self, segment: int, sequences: Iterable[int]) -> None:
        """Say that items now lie in row 0, 1, … of a segment; their order does not change."""
        self._database.execute_many(
            "UPDATE items SET segment = ?, row = ? WHERE sequence = ?",
            ((segment, row, sequence) for row, sequence in enumerate(sequences)),
        )

    def remove_empty_segments(self) -> None:
        self._database.execute(
            "DELETE FROM segments WHERE number NOT IN (SELECT segment FROM items)"
        )
        self._database.execute(
            "DELETE FROM planes WHERE segment NOT IN (SELECT number FROM segments)"
        )

    def _as_rows(self, records: list[tuple[int, int, int]]) -> Rows:
        table = np.array(records) if records else np.empty((0, 3), dtype=np.int64)
        if table.dtype != np.int64:  # SQLite keeps what does not convert to its column's type
            raise damaged(self._name, "the place of an item is not a number")
        return Rows(*(np.ascontiguousarray(column) for column in table.T))

    def _integers(self, row: Sequence[object]) -> list[int]:
        numbers = [value for value in row if isinstance(value, int) and value >= 0]
        if len(numbers) != len(row):
            raise damaged(self._name, f"{tuple(row)} is not a record of sizes")
        return numbers

    def _text(self, value: object) -> str:
        if not isinstance(value, str):
            raise damaged(self._name, "an id is not a text")
        return value
