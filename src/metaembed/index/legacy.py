"""Version 1 of the catalog: an item says in which segment and row it lies.

Read as it is, which takes as long as there are items, until the first writer upgrades it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from metaembed.index.database import Database
from metaembed.index.disk import damaged
from metaembed.index.segments import Segment
from metaembed.index.snapshot import Entry

VERSION = 1

IN_NO_SEGMENT = "SELECT sequence FROM items WHERE segment NOT IN (SELECT number FROM segments)"

PROBLEMS = {
    "an item lies outside its segment": """
        SELECT sequence FROM items LEFT JOIN segments ON segment = number
        WHERE number IS NULL OR typeof(row) <> 'integer' OR row < 0 OR row >= num_rows""",
    "two items share a row": """
        SELECT sequence FROM items WHERE (segment, row) IN (
            SELECT segment, row FROM items GROUP BY segment, row HAVING count(*) > 1)""",
}
"""Queries for the items that are wrong; they find nothing in a sound catalog."""


class Counters(NamedTuple):
    """The last numbers that were given out, which are never given out again."""

    segments: int
    items: int


def files(database: Database) -> Iterable[tuple[object, ...]]:
    """(segment, name, num_bytes, crc32) of every file."""
    return database.execute(
        "SELECT segment, printf('plane-%d-%d.npy', start, stop), num_bytes, crc32 "
        "FROM planes ORDER BY segment, start"
    )


def entries(database: Database, name: str, segments: Mapping[int, Segment]) -> tuple[Entry, ...]:
    """The live rows of every segment, as version 2 would tell them."""
    segment, row, sequence = _items(database, name)
    if unknown := set(np.unique(segment).tolist()) - segments.keys():
        raise damaged(name, f"an item lies in segment {min(unknown)}, which does not exist")
    made, last = [], 0
    for number, one in segments.items():
        low, high = np.searchsorted(segment, (number, number + 1)).tolist()
        rows = row[low:high]
        if len(rows) and (rows[0] < 0 or rows[-1] >= one.num_rows):
            raise damaged(name, f"an item lies outside the {one.num_rows} rows of {number}")
        if (np.diff(rows) == 0).any():
            raise damaged(name, "two items share a row")
        sequences = _sequences(one.num_rows, rows, sequence[low:high], after=last)
        if sequences[0] <= last or (np.diff(sequences) <= 0).any():
            raise damaged(name, f"the items of segment {number} are not in order")
        last = int(sequences[-1])
        is_dead = np.ones(one.num_rows, dtype=bool)
        is_dead[rows] = False
        first = int(sequences[0])
        gapless = None if last - first == one.num_rows - 1 else sequences
        made.append(Entry.of(one, first, gapless, dead=np.flatnonzero(is_dead)))
    return tuple(made)


def take_apart(database: Database) -> Counters:
    """Make room for the tables of version 2; call `entries` before, `put_together` after."""
    seq = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{}'), 0)"
    counters = Counters(
        *(database.execute(seq.format(table)).fetchone()[0] for table in Counters._fields)
    )
    database.execute("DROP TABLE planes")
    database.execute("ALTER TABLE items RENAME TO legacy_items")
    database.execute("DROP TABLE segments")
    return counters


def put_together(database: Database, counters: Counters) -> None:
    """Fill the table of items and go on counting where version 1 was."""
    database.execute("INSERT INTO items SELECT sequence, id, metadata FROM legacy_items")
    database.execute("DROP TABLE legacy_items")
    for table, counter in counters._asdict().items():
        database.execute("DELETE FROM sqlite_sequence WHERE name = ?", table)
        database.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", table, counter)


def _items(
    database: Database, name: str
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Segment, row and sequence of every item, in the order of segments and rows."""
    found = database.execute("SELECT segment, row, sequence FROM items ORDER BY segment, row")
    records = found.fetchall()
    table = np.array(records) if records else np.empty((0, 3), dtype=np.int64)
    if table.dtype != np.int64:  # SQLite keeps what does not convert to its column's type
        raise damaged(name, "the place of an item is not a number")
    segment, row, sequence = (np.ascontiguousarray(column) for column in table.T)
    return segment, row, sequence


def _sequences(
    num_rows: int, rows: Int[np.ndarray, " n"], sequences: Int[np.ndarray, " n"], *, after: int
) -> Int[np.ndarray, " num_rows"]:
    """Give every row of a segment a sequence, also those whose items are gone.

    Those had the numbers that are missing between the others, so counting on from the row before
    (or back from the first) stays below the row after.
    """
    if not len(rows):
        return np.arange(after + 1, after + 1 + num_rows)
    everything = np.arange(num_rows)
    nearest = np.maximum(np.searchsorted(rows, everything, side="right") - 1, 0)
    return sequences[nearest] + everything - rows[nearest]
