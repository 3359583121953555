"""Fields of the metadata in memory, so that a filter need not read every item's JSON.

A column lists the distinct values of a field once, in order, and has one int32 code per item. A
condition is decided for the distinct values and looked up for the items. What passes is by
definition what passes the SQL of `metaembed.index.filters`; the values come from SQLite for the
same reason, and nothing here parses metadata.
"""

import json
import sqlite3
import sys
import threading
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from metaembed.errors import IndexFormatError
from metaembed.index.filters import (
    All,
    AnyOf,
    Compare,
    Exists,
    Not,
    OneOf,
    Prefix,
    Test,
    Tree,
    fields_of,
)

MAX_FIELDS = 32
MAX_BYTES = 2**29
"""Of all columns of an index; the least recently used are dropped."""

MAX_COLUMN_BYTES = 2**28
"""Of one: about 2 million distinct texts of 50 characters. SQL has to do for larger fields."""

BLOCK = 2**12
"""Items read between two looks at the memory they take."""

Value = str | int | float | bytes | None
Read = Callable[[str, int], Iterable[tuple[int, Value]]]
"""`read(field, after)` yields (sequence, `FIELD_VALUE`) of the items with a greater sequence."""

MARKERS: tuple[Value, ...] = (None, b"null", b"true", b"false", b"array", b"object")
"""The values that have the first codes in every column. None: the field is missing."""

KINDS = {type(None): 0, bytes: 0, int: 1, float: 1, str: 2}
"""The order in a column: markers, numbers, texts."""


class Columns:
    """The fields that the filters of one index have asked for. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sequences: Int[np.ndarray, " n"] = np.empty(0, np.int64)
        # The least recently used first; None: too large to keep. Each covers the first of
        # `_sequences`: what was added since it was used last is read when it is used again.
        self._columns: dict[str, Column | None] = {}

    def mask(
        self, tree: Tree, sequences: Int[np.ndarray, " n"], read: Read
    ) -> Bool[np.ndarray, " n"] | None:
        """Say which of the live items pass a filter; None when only SQL can tell.

        `sequences` are those of all live items, ascending, and nobody writes to that array again.
        Call it inside the transaction that they come from and that `read` reads in. Raises
        `IndexFormatError` when there is no record of one of the items.
        """
        fields = fields_of(tree)
        if len(fields) > MAX_FIELDS:
            return None
        with self._lock:
            self._follow(sequences)
            found = {field: self._updated(field, read) for field in fields}
            self._evict()
        columns = {field: column for field, column in found.items() if column is not None}
        return _mask(tree, columns, len(sequences)) if len(columns) == len(fields) else None

    def _follow(self, sequences: Int[np.ndarray, " n"]) -> None:
        """Drop the codes of the items that are gone."""
        known, self._sequences = self._sequences, sequences
        if sequences is known or not len(known):
            return
        still = sequences[: np.searchsorted(sequences, known[-1], side="right")]
        if np.array_equal(known, still):
            return
        kept = np.isin(known, still, assume_unique=True)
        if np.count_nonzero(kept) < len(still):  # an older state: some are back
            self._columns.clear()
        for field, column in self._columns.items():
            if column is not None:
                self._columns[field] = column.only(kept[: len(column.codes)])

    def _updated(self, field: str, read: Read) -> "Column | None":
        """The column of all live items, which is then the one used last."""
        column = self._columns.pop(field, EMPTY)
        if column is not None:
            num_known = len(column.codes)
            after = int(self._sequences[num_known - 1]) if num_known else -1
            if num_known < len(self._sequences):
                column = column.extended(self._sequences[num_known:], read(field, after))
        self._columns[field] = column
        return column

    def _evict(self) -> None:
        sizes = [column.num_bytes if column else 0 for column in self._columns.values()]
        total, num_dropped = sum(sizes), 0
        while total > MAX_BYTES or len(sizes) - num_dropped > MAX_FIELDS:
            total -= sizes[num_dropped]
            num_dropped += 1
        for field in list(self._columns)[:num_dropped]:
            del self._columns[field]


class Column(NamedTuple):
    """One field. Never changed, so that one thread may read it while another makes the next."""

    values: np.ndarray
    """Objects: `MARKERS`, then the numbers, then the texts, distinct and ascending."""
    first_text: int
    codes: Int[np.ndarray, " n"]
    """Where in `values` the value of every item is."""
    num_value_bytes: int

    @property
    def num_bytes(self) -> int:
        return self.num_value_bytes + self.codes.nbytes

    @property
    def numbers(self) -> slice:
        return slice(len(MARKERS), self.first_text)

    @property
    def texts(self) -> slice:
        return slice(self.first_text, len(self.values))

    def passing(self, test: Test) -> Bool[np.ndarray, " values"]:
        """Say which of the values pass a condition."""
        passing = np.zeros(len(self.values), dtype=np.bool_)
        match test:
            case Exists(_, present):
                passing[:1], passing[1:] = not present, present
            case Compare(_, operator, operand):
                passing[self._range(operator, operand)] = True
            case Prefix(_, text):
                passing[self._prefix(text)] = True
            case OneOf(_, texts, numbers, literals):
                passing[self._places(self.texts, texts)] = True
                passing[self._places(self.numbers, _as_stored(numbers))] = True
                passing[[MARKERS.index(literal.encode()) for literal in literals]] = True
        return passing

    def _range(self, operator: str, operand: str | int | float) -> slice:
        among = self.texts if isinstance(operand, str) else self.numbers
        wanted = operand if isinstance(operand, str) else _as_stored((operand,))[0]
        bisect = bisect_left if operator in ("lt", "gte") else bisect_right
        place = bisect(self.values, wanted, among.start, among.stop)
        below = operator in ("lt", "lte")
        return slice(among.start, place) if below else slice(place, among.stop)

    def _prefix(self, text: str) -> slice:
        def cut(value: str) -> str:  # to the same length, which leaves texts in order
            return value[: len(text)]

        first = bisect_left(self.values, text, self.first_text)
        return slice(first, bisect_right(self.values, text, first, key=cut))

    def _places(self, among: slice, wanted: Collection[Value]) -> list[int]:
        """Where the values are that exist."""
        if len(wanted) * 8 > among.stop - among.start:  # a look at each is faster
            is_wanted = set(wanted).__contains__
            return [n for n, one in enumerate(self.values[among], among.start) if is_wanted(one)]
        places = [bisect_left(self.values, one, among.start, among.stop) for one in wanted]
        found = zip(places, wanted, strict=True)
        return [n for n, one in found if n < among.stop and self.values[n] == one]

    def only(self, kept: Bool[np.ndarray, " n"]) -> "Column":
        """Drop items, and the values that only they had once those are the greater part."""
        codes = self.codes[kept]
        if len(self.values) <= 2 * (len(codes) + len(MARKERS)):
            return self._replace(codes=codes)
        used = np.union1d(np.arange(len(MARKERS)), codes)
        values = self.values[used]
        first_text = int(np.searchsorted(used, self.first_text))
        codes = np.searchsorted(used, codes).astype(np.int32)
        return Column(values, first_text, codes, _num_bytes(values))

    def extended(
        self, sequences: Int[np.ndarray, " new"], rows: Iterable[tuple[int, Value]]
    ) -> "Column | None":
        """Append the items of these sequences; None if they take too much memory."""
        encoded = _encode(rows, room=MAX_COLUMN_BYTES - self.num_value_bytes)
        if encoded is None:
            return None
        found, codes, values = encoded
        wanted = np.isin(found, sequences, assume_unique=True)
        num_missing = len(sequences) - np.count_nonzero(wanted)
        if num_missing:
            raise IndexFormatError(
                f"The index is damaged: catalog.sqlite has no record of {num_missing} live items. "
                "Restore it or rebuild the index."
            )
        column, places = self._with_values(values)
        return column._replace(codes=np.concatenate([column.codes, places[codes[wanted]]]))

    def _with_values(self, values: list[Any]) -> "tuple[Column, Int[np.ndarray, ' values']]":
        """Add the values that are new, and say where all of them are then."""
        kinds = np.array([KINDS[type(value)] for value in values])
        markers, numbers, texts = (np.flatnonzero(kinds == kind).tolist() for kind in range(3))
        numbers.sort(key=values.__getitem__)
        texts.sort(key=values.__getitem__)
        order = np.array([*markers, *numbers, *texts])
        ordered = np.array(values, dtype=object)[order]
        place = np.array([MARKERS.index(values[n]) for n in markers], dtype=np.int64)
        for among, some in ((self.numbers, numbers), (self.texts, texts)):
            wanted = np.array([values[n] for n in some], dtype=object)
            found = np.searchsorted(self.values[among], wanted)  # to be at, or to go before
            place = np.append(place, among.start + found)
        is_new = self.values[np.minimum(place, len(self.values) - 1)] != ordered
        codes = np.empty(len(values), np.int32)
        codes[order] = place + np.cumsum(is_new) - is_new
        if not is_new.any():
            return self, codes
        num_before = np.cumsum(np.bincount(place[is_new], minlength=len(self.values) + 1))
        moved = np.arange(len(self.values)) + num_before[:-1]
        column = Column(
            np.insert(self.values, place[is_new], ordered[is_new]),
            self.first_text + int(np.count_nonzero(is_new[: len(markers) + len(numbers)])),
            moved.astype(np.int32)[self.codes],
            self.num_value_bytes + _num_bytes(ordered[is_new]),
        )
        return column, codes


def _encode(
    rows: Iterable[tuple[int, Value]], *, room: int
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"], list[Value]] | None:
    """Number the distinct values as they come: sequences, numbers, values.

    None once the values take more than `room` bytes.
    """
    numbers: defaultdict[Value, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    sequences = [np.empty(0, np.int64)]
    codes = [np.empty(0, np.int32)]
    rest = iter(rows)
    while block := list(islice(rest, BLOCK)):
        num_known = len(numbers)
        found, held = zip(*block, strict=True)
        sequences.append(np.array(found))
        codes.append(np.fromiter(map(numbers.__getitem__, held), np.int32, len(held)))
        room -= _num_bytes(islice(reversed(numbers), len(numbers) - num_known))
        if room < 0:
            return None
    return np.concatenate(sequences), np.concatenate(codes), list(numbers)


def _num_bytes(values: Iterable[Value]) -> int:
    return sum(map(sys.getsizeof, values))


def _as_stored(numbers: Collection[int | float]) -> list[int | float]:
    """Round as SQLite's JSON reader does: integers beyond 64 bits, and decimals in its own way."""
    if all(isinstance(number, int) and number.bit_length() < 64 for number in numbers):
        return list(numbers)
    with closing(sqlite3.connect(":memory:")) as connection:
        found = connection.execute("SELECT value FROM json_each(?)", (json.dumps(numbers),))
        return [number for (number,) in found]


def _mask(tree: Tree, columns: Mapping[str, Column], num_items: int) -> Bool[np.ndarray, " n"]:
    match tree:
        case All(parts):
            mask = np.ones(num_items, dtype=np.bool_)
            for part in parts:
                mask &= _mask(part, columns, num_items)
        case AnyOf(parts):
            mask = np.zeros(num_items, dtype=np.bool_)
            for part in parts:
                mask |= _mask(part, columns, num_items)
        case Not(part):
            mask = ~_mask(part, columns, num_items)
        case test:
            column = columns[test.field]
            mask = column.passing(test).take(column.codes)
    return mask


EMPTY = Column(np.array(MARKERS, dtype=object), len(MARKERS), np.empty(0, np.int32), 0)
