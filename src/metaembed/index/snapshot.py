"""One state of an index: which rows of which segments are live, and which items they are.

An item is known by its sequence number. Sequences ascend with the rows of a segment and from one
segment to the next, and most often they are consecutive, so a state costs little to hold.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from metaembed.index.disk import damaged
from metaembed.index.segments import Segment

NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Entry:
    """The items of one segment."""

    segment: Segment
    first_sequence: int
    sequences: Int[np.ndarray, " num_rows"] | None
    """Of each row, ascending; None: row r has `first_sequence + r`."""
    dead: Int[np.ndarray, " d"]
    """Rows whose item is gone, ascending."""
    rows: Int[np.ndarray, " n"] | None
    """The rows that are meant, ascending; None: all."""

    @classmethod
    def of(
        cls,
        segment: Segment,
        first_sequence: int,
        sequences: Int[np.ndarray, " num_rows"] | None,
        *,
        dead: Int[np.ndarray, " d"] = NOTHING,
    ) -> "Entry":
        """Mean the rows that live."""
        rows = None
        if len(dead):
            is_live = np.ones(segment.num_rows, dtype=bool)
            is_live[dead] = False
            rows = np.flatnonzero(is_live)
        return cls(segment, first_sequence, sequences, dead, rows)

    def __len__(self) -> int:
        return self.segment.num_rows if self.rows is None else len(self.rows)

    @property
    def last_sequence(self) -> int:
        """Of the last row, live or not."""
        if self.sequences is None:
            return self.first_sequence + self.segment.num_rows - 1
        return int(self.sequences[-1])

    def sequences_of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return self.first_sequence + rows if self.sequences is None else self.sequences[rows]

    def sequences_at(self, positions: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Of the rows that are meant, counted among themselves."""
        return self.sequences_of(positions if self.rows is None else self.rows[positions])

    def where(self, mask: Bool[np.ndarray, " n"]) -> "Entry":
        """Mean those of its rows for which `mask` is true."""
        return self if mask.all() else self.at(np.flatnonzero(mask))

    def at(self, positions: Int[np.ndarray, " m"]) -> "Entry":
        """Mean some of its rows, given by ascending positions among them."""
        return replace(self, rows=positions if self.rows is None else self.rows[positions])

    def rows_of(self, sequences: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Sequences between the first and the last; -1 where no row has it."""
        if self.sequences is None:
            return sequences - self.first_sequence
        rows = np.searchsorted(self.sequences, sequences)
        return np.where(self.sequences[rows] == sequences, rows, -1)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One state of the catalog, or the part of it that passes a filter."""

    name: str
    """Of the index."""
    version: int
    entries: tuple[Entry, ...]
    """One for each segment, also where no row is meant; sequences ascend from one to the next."""

    def __len__(self) -> int:
        return sum(len(entry) for entry in self.entries)

    def select(self, sequences: Int[np.ndarray, " n"]) -> "Snapshot":
        """Mean these items only: live ones, ascending."""
        chosen = [replace(entry, rows=rows) for entry, (_, rows) in self._located(sequences)]
        return replace(self, entries=tuple(chosen))

    def locate(
        self, sequences: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[Entry, Int[np.ndarray, " m"], Int[np.ndarray, " m"]]]:
        """Find items in any order: for each segment, which of them it has, and in which rows."""
        order = np.argsort(sequences, kind="stable")
        for entry, (found, rows) in self._located(sequences[order]):
            if len(rows):
                yield entry, order[found], rows

    def sequences_at(self, positions: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        """Which items those are, counted through the entries."""
        if len(self.entries) == 1:
            return self.entries[0].sequences_at(positions)
        stops = self._stops
        owners = np.searchsorted(stops, positions, side="right")
        sequences = np.empty(positions.shape, np.int64)
        # Not np.unique, which imports numpy.ma on its first call: 36 ms of the first search.
        for number in np.flatnonzero(np.bincount(owners.ravel())).tolist():
            here = owners == number
            entry = self.entries[number]
            sequences[here] = entry.sequences_at(positions[here] - (stops[number] - len(entry)))
        return sequences

    @cached_property
    def _stops(self) -> Int[np.ndarray, " entries"]:
        return np.cumsum([len(entry) for entry in self.entries], dtype=np.int64)

    @cached_property
    def sequences(self) -> Int[np.ndarray, " n"]:
        """Of all items that are meant, ascending."""
        parts = [entry.sequences_at(np.arange(len(entry))) for entry in self.entries]
        return np.concatenate([NOTHING, *parts])

    def where(self, mask: Bool[np.ndarray, " n"]) -> "Snapshot":
        """Mean those of the items for which `mask` is true."""
        chosen, start = [], 0
        for entry in self.entries:
            stop = start + len(entry)
            chosen.append(entry.where(mask[start:stop]))
            start = stop
        return replace(self, entries=tuple(chosen))

    def _located(
        self, sequences: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[Entry, tuple[slice, Int[np.ndarray, " m"]]]]:
        """For each entry, which of ascending `sequences` it has and in which rows."""
        num_found = 0
        for entry in self.entries:
            bounds = (entry.first_sequence, entry.last_sequence + 1)
            low, high = np.searchsorted(sequences, bounds).tolist()
            rows = entry.rows_of(sequences[low:high])
            if len(rows) and rows.min() < 0:
                break
            num_found += len(rows)
            yield entry, (slice(low, high), rows)
        if num_found != len(sequences):
            raise damaged(self.name, "an item lies in no segment")


def make_entries(
    name: str, placed: Sequence[Entry], dead: Int[np.ndarray, " d"], known: Mapping[int, Entry]
) -> tuple[Entry, ...]:
    """Mark the rows of deleted sequences (ascending) in `placed`, after checking that all fits.

    `known` are entries of an earlier state, by segment; what has not changed is taken from there.
    """
    entries, num_dead, last = [], 0, 0
    for entry in placed:
        if entry.first_sequence <= last:
            raise damaged(name, f"segment {entry.segment.number} begins before another ends")
        last = entry.last_sequence
        low, high = np.searchsorted(dead, (entry.first_sequence, last + 1)).tolist()
        rows = entry.rows_of(dead[low:high])
        rows = rows[rows >= 0]
        num_dead += len(rows)
        old = known.get(entry.segment.number)
        if old is None or old.segment != entry.segment or not np.array_equal(old.dead, rows):
            old = Entry.of(entry.segment, entry.first_sequence, entry.sequences, dead=rows)
        entries.append(old)
    if num_dead != len(dead):
        raise damaged(name, "a deleted item lies in no segment")
    return tuple(entries)
