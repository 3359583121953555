"""Columns pass what SQL passes, and what plain Python passes."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.errors import IndexFormatError
from metaembed.index import columns as columns_module
from metaembed.index.columns import EMPTY, Columns
from metaembed.index.filters import FIELD_VALUE, as_sql, field_path, parse_filter
from metaembed.index.records import encode_metadata
from tests.index.test_index_filters import ITEMS, METADATA, filters, passes


def sequences_of(*numbers):
    return np.array(numbers, dtype=np.int64)


def test_a_column_worked_by_hand():
    held = {"page": [(3, 7), (5, "b"), (6, None), (9, b"true"), (10, 2.5), (11, 7.0), (12, "ab")]}
    columns, sequences = Columns(), sequences_of(3, 5, 6, 9, 10, 11, 12)

    def mask(test):
        tree = parse_filter({"page": test})
        return columns.mask(tree, sequences, lambda field, _: held[field]).tolist()

    #                              7      "b"    -      true   2.5    7.0    "ab"
    assert mask(7) == [True, False, False, False, False, True, False]
    assert mask({"lt": 7}) == [False, False, False, False, True, False, False]
    assert mask({"gte": "b"}) == [False, True, False, False, False, False, False]
    assert mask({"prefix": "a"}) == [False, False, False, False, False, False, True]
    assert mask({"in": [True, "b"]}) == [False, True, False, True, False, False, False]
    assert mask({"exists": False}) == [False, False, True, False, False, False, False]

    column = columns._columns["page"]
    assert column.values.tolist()[-4:] == [2.5, 7, "ab", "b"]
    assert (column.codes - column.first_text).tolist() == [-1, 1, -8, -6, -2, -1, 0]


class Items:
    """A table of items, and how often each field was read of it."""

    def __init__(self, *metadata):
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.connection.execute(
            "CREATE TABLE items (sequence INTEGER PRIMARY KEY AUTOINCREMENT, metadata TEXT)"
        )
        self.reads = []
        self.add(metadata)

    def add(self, metadata):
        texts = encode_metadata(metadata, ["an item"] * len(metadata))
        self.connection.executemany(
            "INSERT INTO items (metadata) VALUES (?)", [(text,) for text in texts]
        )

    def delete(self, places):
        sequences = self.sequences()
        for place in places:
            if place < len(sequences):
                self.connection.execute(
                    "DELETE FROM items WHERE sequence = ?", (int(sequences[place]),)
                )

    def read(self, field, after):
        self.reads.append((field, after))
        return self.connection.execute(
            f"SELECT sequence, {FIELD_VALUE} FROM items WHERE sequence > ?2 ORDER BY sequence",
            (field_path(field), after),
        )

    def sequences(self, where="1", parameters=()):
        found = self.connection.execute(
            f"SELECT sequence FROM items WHERE {where} ORDER BY sequence", parameters
        )
        return sequences_of(*[sequence for (sequence,) in found])

    def passing(self, filter, columns):
        sequences = self.sequences()
        return sequences[columns.mask(parse_filter(filter), sequences, self.read)].tolist()

    def passing_sql(self, filter):
        return self.sequences(*as_sql(parse_filter(filter))).tolist()


STEPS = st.lists(
    st.tuples(
        st.lists(METADATA, max_size=8),
        st.lists(st.integers(0, 20), max_size=6),
        st.lists(filters(), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_columns_pass_what_sql_and_plain_python_pass_while_items_come_and_go(steps):
    items, columns, metadata = Items(), Columns(), {}
    for added, deleted, some_filters in steps:
        before = set(items.sequences().tolist())
        items.add(added)
        metadata |= dict(zip(sorted({*items.sequences().tolist()} - before), added, strict=True))
        items.delete(deleted)
        live = items.sequences().tolist()
        for filter in some_filters:
            passed = items.passing(filter, columns)
            assert passed == [number for number in live if passes(filter, metadata[number])]
            assert passed == items.passing_sql(filter)
            opposite = [number for number in live if number not in passed]
            assert items.passing({"not": filter}, columns) == opposite


VALUES = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([-0.5, 0.0, 1.5, None, b"null", b"true", b"false", b"array", b"object"]),
    st.text(st.sampled_from("ab"), max_size=3),
)


@settings(max_examples=200, deadline=None)
@given(batches=st.lists(st.lists(VALUES, min_size=1, max_size=6), min_size=2, max_size=4))
def test_a_column_holds_what_it_was_extended_with_in_order_and_once(batches):
    column, held = EMPTY, []
    for batch in batches:
        sequences = np.arange(len(batch))
        column = column.extended(sequences, zip(sequences.tolist(), batch, strict=True))
        held += batch
        values = column.values.tolist()
        assert column.values[column.codes].tolist() == held
        assert column.codes.dtype == np.int32
        assert values[column.numbers] == sorted({v for v in held if type(v) in (int, float)})
        assert values[column.texts] == sorted({v for v in held if type(v) is str})


EDGES = st.one_of(
    st.sampled_from([0, -0.0, 1, True, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 2.0**63]),
    st.sampled_from([2**63, 2**64, 2**64 + 1, -(2**63) - 1, 2**1024 - 1, 10**300, 5e-324]),
    st.sampled_from(["", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "\U0010ffff!"]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3),
)
EDGE_TESTS = st.one_of(
    EDGES,
    st.fixed_dictionaries({"in": st.lists(EDGES, max_size=6)}),
    st.dictionaries(
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        EDGES.filter(lambda value: value is not True),
        min_size=1,
    ),
    st.fixed_dictionaries({"prefix": EDGES.filter(lambda value: isinstance(value, str))}),
)


@settings(max_examples=100, deadline=None)
@given(held=st.lists(EDGES, max_size=20), tests=st.lists(EDGE_TESTS, min_size=1, max_size=10))
def test_columns_round_and_compare_as_sqlite_does(held, tests):
    items, columns = Items(*[{"x": value} for value in held]), Columns()
    for test in tests:
        assert items.passing({"x": test}, columns) == items.passing_sql({"x": test})


def test_a_long_in_list_passes_what_a_short_one_passes():
    items, columns = Items(*[{"n": n, "t": str(n)} for n in range(200)]), Columns()
    for wanted in (range(195, 210), range(100, 300)):
        inside = [n + 1 for n in wanted if n < 200]
        assert items.passing({"n": {"in": [float(n) for n in wanted]}}, columns) == inside
        assert items.passing({"t": {"in": [str(n) for n in wanted]}}, columns) == inside


def test_only_what_is_new_is_read():
    items, columns = Items(*ITEMS), Columns()
    items.passing({"page": 1, "not": {"page": {"gt": 1}}}, columns)
    items.passing({"page": 1, "kind": "pdf"}, columns)
    assert items.reads == [("page", -1), ("kind", -1)]
    items.delete([1])
    assert items.passing({"page": {"exists": True}}, columns) == [1, 3, 4]
    assert len(items.reads) == 2
    items.add([{"page": 3}, {"page": 0.5, "kind": "text"}])
    assert items.passing({"page": {"lt": 5}}, columns) == [1, 6, 7]
    items.delete([0])
    items.add([{"kind": "pdf"}])
    assert items.passing({"kind": {"in": ["pdf", "text"]}}, columns) == [7, 8]
    assert items.reads[2:] == [("page", 5), ("kind", 5)]


def test_an_empty_index_and_an_emptied_one_pass_nothing():
    items, columns = Items(), Columns()
    assert items.passing({"not": {"a": 1}}, columns) == []
    items.add([{"a": 1}, {"a": 2}])
    assert items.passing({"not": {"a": 1}}, columns) == [2]
    items.delete([0, 1])
    assert items.passing({"not": {"a": 1}}, columns) == []
    items.add([{"a": 3}])
    assert items.passing({}, columns) == [3]
    assert items.passing({"a": {"gt": 1}}, columns) == [3]


def test_an_older_state_is_read_again():
    items, columns = Items(*ITEMS), Columns()
    older = items.sequences()
    tree = parse_filter({"page": {"lt": 5}})
    columns.mask(tree, older[[0, 3, 4]], items.read)
    assert columns.mask(tree, older, items.read).tolist() == [True, True, False, False, False]
    assert columns.mask(tree, older[:2], items.read).tolist() == [True, True]
    assert columns.mask(tree, older[1:], items.read).tolist() == [True, False, False, False]


def test_an_item_without_a_record_is_an_error_and_does_no_lasting_harm():
    items, columns = Items(*ITEMS), Columns()
    tree = parse_filter({"kind": "pdf"})
    with pytest.raises(IndexFormatError, match="no record of 2 live items"):
        columns.mask(tree, sequences_of(1, 2, 8, 9), items.read)
    assert items.passing({"kind": "pdf"}, columns) == [1, 2]


def test_a_read_that_fails_does_no_lasting_harm():
    items, columns = Items(*ITEMS), Columns()
    items.passing({"kind": "pdf"}, columns)
    items.add([{"kind": "pdf"}])

    def fail(field, after):
        yield 6, "pdf"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        columns.mask(parse_filter({"kind": "pdf"}), items.sequences(), fail)
    assert items.passing({"kind": "pdf"}, columns) == [1, 2, 6]


def test_values_that_no_item_has_any_more_are_forgotten():
    items, columns = Items(), Columns()
    for start in range(0, 1000, 50):  # an upsert of all 50
        items.delete(range(50))
        items.add([{"n": start + n, "t": f"text {start + n}"} for n in range(50)])
        assert len(items.passing({"n": {"gte": start}, "t": {"prefix": "text"}}, columns)) == 50
        assert items.passing({"t": f"text {start - 1}"}, columns) == []
        for column in columns._columns.values():
            assert len(column.values) <= 2 * (50 + 6)
    assert column.num_value_bytes < 150 * 100


def test_the_fields_used_last_are_kept(monkeypatch):
    monkeypatch.setattr(columns_module, "MAX_FIELDS", 2)
    items, columns = Items({"a": 1, "b": 2, "c": 3}), Columns()
    for field in "abac":
        assert items.passing({field: {"gt": 0}}, columns) == [1]
    assert list(columns._columns) == ["a", "c"]
    assert items.passing({"a": 1, "b": 2}, columns) == [1]
    assert [field for field, _ in items.reads] == ["a", "b", "c", "b"]
    everything = parse_filter({"a": 1, "or": [{"b": 2}, {"c": 3}]})
    assert columns.mask(everything, items.sequences(), items.read) is None


def test_fields_that_take_too_much_memory_are_left_to_sql(monkeypatch):
    monkeypatch.setattr(columns_module, "BLOCK", 10)
    monkeypatch.setattr(columns_module, "MAX_COLUMN_BYTES", 10_000)
    items = Items(*[{"body": "x" * 1000 + str(n), "page": n} for n in range(40)])
    columns, read = Columns(), []

    def watched(field, after):
        for row in items.read(field, after):
            read.append(row)
            yield row

    body = parse_filter({"page": 1, "body": {"prefix": "x"}})
    assert columns.mask(body, items.sequences(), watched) is None
    assert len([value for _, value in read if isinstance(value, str)]) == 10
    items.reads.clear()
    assert columns.mask(body, items.sequences(), items.read) is None
    assert columns.mask(parse_filter({"page": 1}), items.sequences(), items.read).sum() == 1
    assert ("body", -1) not in items.reads

    items.add([{"page": "y" * 1000 + str(n)} for n in range(40)])  # grows too large later
    assert columns.mask(parse_filter({"page": 1}), items.sequences(), items.read) is None


def test_columns_beyond_the_memory_of_all_are_dropped(monkeypatch):
    items, columns = Items({"a": "x" * 600, "b": "y" * 600, "c": 3}), Columns()
    monkeypatch.setattr(columns_module, "MAX_BYTES", 1000)
    for field in "abc":
        assert items.passing({field: {"exists": True}}, columns) == [1]
    assert list(columns._columns) == ["b", "c"]
    assert items.passing({"a": {"prefix": "xx"}, "b": {"prefix": "yy"}}, columns) == [1]


@settings(max_examples=5, deadline=None)
@given(
    metadata=st.lists(METADATA, min_size=5, max_size=20),
    some_filters=st.lists(filters(), min_size=5),
)
def test_threads_may_share_columns(metadata, some_filters):
    items, columns = Items(*metadata), Columns()
    expected = [items.passing_sql(filter) for filter in some_filters]
    sequences = items.sequences()

    def search(n):
        tree = parse_filter(some_filters[n % len(some_filters)])
        half = sequences[: len(sequences) // 2] if n % 3 else sequences
        mask = columns.mask(tree, half, items.read)
        return n, half, half[mask].tolist()

    with ThreadPoolExecutor(8) as pool:
        for n, half, passed in pool.map(search, range(100)):
            assert passed == [s for s in expected[n % len(some_filters)] if s in half]
