"""The numbers of segments and items, of which none is given out twice.

SQLite keeps the last of each (AUTOINCREMENT), also where what had it is gone. A number that no
index gets to is damage: what is counted on from there, nobody could read.
"""

from metaembed.index.database import Database
from metaembed.index.disk import damaged

MAX_NUMBER = 2**62
"""Less than SQLite holds, so that the sum of two is still a number."""

COUNTED = {
    "segments": (("number", "segments"),),
    "items": (("sequence", "items"), ("sequence", "deleted")),
}
"""For each counter the columns that it counts."""

_LAST = "SELECT seq FROM sqlite_sequence WHERE name = '{}'"


def next_number(database: Database, counter: str, *, name: str) -> int:
    """The first that was never given out; `name` is that of the index."""
    parts = [_LAST.format(counter)]
    parts += [f"SELECT max({column}) FROM {table}" for column, table in COUNTED[counter]]
    # Each part on its own, or SQLite reads a whole table.
    (last,) = database.execute(
        f"SELECT max({', '.join(f'coalesce(({part}), 0)' for part in parts)})"
    ).fetchone()
    if not _is_number(last):
        raise damaged(name, f"the last of its {counter} has number {last!r}")
    return int(last) + 1


def reset_counters(database: Database, *, last_segment: int) -> list[str]:
    """Set the counters that cannot be right to the last number in use, and name them.

    `last_segment` is the last number that a segment had.
    """
    reset = []
    for counter, columns in COUNTED.items():
        if all(_is_number(last) for (last,) in database.execute(_LAST.format(counter))):
            continue
        used = [last_segment if counter == "segments" and _is_number(last_segment) else 0]
        for column, table in columns:
            found = database.execute(
                f"SELECT max({column}) FROM {table} WHERE {column} < ?", MAX_NUMBER - 1
            )
            used += [number for (number,) in found if number is not None]
        database.execute("DELETE FROM sqlite_sequence WHERE name = ?", counter)
        database.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", counter, max(used))
        reset.append(counter)
    return reset


def _is_number(value: object) -> bool:
    """Whether it has a next one."""
    return isinstance(value, int) and 0 <= value < MAX_NUMBER - 1
