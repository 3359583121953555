"""`Index.extend`: more items than memory holds, in segments that are durable one by one."""

import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.errors import IndexMismatchError
from metaembed.index import Index, batches
from tests.index.examples import GROUPS, command, grid, make_index, naive_search, pairs, saved

BYTES = 4 * 4 * 2
"""Of an item of four float16 vectors of 4."""


@pytest.fixture
def index(tmp_path):
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS, dtype="float16") as index:
        yield index


def batch(ids, seed=0):
    return list(ids), grid(len(ids), 4, 4, seed), [{"id": id} for id in ids]


def segment_rows(index):
    return [entry.segment.num_rows for entry in index._store.snapshot().entries]


def test_batches_become_segments_of_a_useful_size(index, monkeypatch):
    monkeypatch.setattr(batches, "SEGMENT_BYTES", 3 * BYTES + 1)
    given = [batch("ab"), batch("cdef", 1), batch("", 2), batch("g", 3)]
    assert index.extend(iter(given)) == 7
    assert segment_rows(index) == [3, 3, 1]
    assert index.ids() == list("abcdefg")
    assert index.get(["f"]) == [{"id": "f"}]
    expected = np.concatenate([vectors for _, vectors, _ in given])
    assert np.array_equal(index.embeddings(list("abcdefg")), expected)
    assert index.verify() == []


def test_no_batches_write_nothing(index):
    assert index.extend([]) == index.extend([batch("")]) == 0
    assert index.stats()[:3] == (0, 0, 0)


def test_long_metadata_makes_a_segment_full_too(index, monkeypatch):
    monkeypatch.setattr(batches, "SEGMENT_BYTES", 10 * BYTES)
    long = [{"text": "x" * 400}]
    index.extend(([id], grid(1, 4, 4), long if id == "b" else None) for id in "abcd")
    assert segment_rows(index) == [2, 2]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from("abcdef")).map(sorted), max_size=5),
    st.sampled_from([BYTES, 2 * BYTES, 5 * BYTES, 100 * BYTES]),
)
def test_replacing_leaves_what_a_dict_would_hold(tmp_path_factory, given, limit):
    expected = {}
    path = tmp_path_factory.mktemp("extend")
    with pytest.MonkeyPatch.context() as patch, make_index(path / "idx", items=0) as index:
        patch.setattr(batches, "SEGMENT_BYTES", limit)
        index.upsert(["a", "z"], grid(2, 4, 4, seed=99))
        expected = dict(zip("az", grid(2, 4, 4, seed=99), strict=True))
        num_items = index.extend((batch(ids, seed) for seed, ids in enumerate(given)), replace=True)
        for seed, ids in enumerate(given):
            for id, vectors in zip(ids, grid(len(ids), 4, 4, seed), strict=True):
                expected.pop(id, None)
                expected[id] = vectors
        assert num_items == sum(map(len, given))
        assert index.ids() == list(expected)
        queries = grid(2, 2, 4, seed=7)
        assert pairs(index.search(queries)) == naive_search(expected, queries, "2x4")
        assert index.verify() == []


def test_the_last_of_an_id_that_comes_twice_in_a_segment_is_stored_alone(tmp_path):
    with Index.create(
        tmp_path / "idx", dim=4, groups=GROUPS, dtype="int4", sketch="binary"
    ) as index:
        index.extend([batch("ab"), batch("b", 1), batch("ca", 2)], replace=True)
        assert index.ids() == ["b", "c", "a"]
        assert index.stats()[:3] == (3, 0, 1)
        assert len(saved(index.path, 1)["sketch-1-4.npy"]) == 3
        assert index.verify() == []
    with Index.create(tmp_path / "two", dim=4, groups=GROUPS, dtype="int4") as other:
        other.add(list("bca"), np.concatenate([grid(1, 4, 4, 1), grid(2, 4, 4, 2)]))
        for name, array in saved(tmp_path / "two", 1).items():
            assert np.array_equal(array, saved(index.path, 1)[name])


@pytest.mark.parametrize("limit", [BYTES, 100 * BYTES])
def test_an_iterator_that_fails_keeps_what_came_before(index, monkeypatch, limit):
    monkeypatch.setattr(batches, "SEGMENT_BYTES", limit)

    def failing():
        yield batch("ab")
        yield batch("c")
        raise RuntimeError("the model fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        index.extend(failing())
    assert index.ids() == list("abc")
    assert index.verify() == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (batch("xa"), "has 1 of these ids already, for example 'a'.*replace=True"),
        (batch("xo"), "has 1 of these ids already, for example 'o'"),
        ((["x"], grid(1, 3, 4), None), "take"),
        ((["x"], np.full((1, 4, 4), 1e6), None), "too large for float16"),
        ((["x", "x"], grid(2, 4, 4), None), "given twice"),
        ((["x"], grid(1, 4, 4), [{"a": object()}]), "stored as JSON"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_and_those_before_it_are_kept(index, bad, message):
    index.add(["o"], grid(1, 4, 4))
    with pytest.raises(IndexMismatchError, match=message) as caught:
        index.extend([batch("ab"), bad, batch("c")])
    assert "\n" not in str(caught.value)
    assert index.ids() == list("oab")


def test_a_callers_buffers_may_be_used_again(index):
    buffer = np.empty((1, 4, 4), np.float32)

    def refilled():
        for seed, id in enumerate("abc"):
            buffer[:] = grid(1, 4, 4, seed)
            yield [id], buffer, None

    index.extend(refilled())
    expected = np.concatenate([grid(1, 4, 4, seed) for seed in range(3)])
    assert np.array_equal(index.embeddings(list("abc")), expected)


def test_another_writer_may_come_between_two_segments(index, monkeypatch):
    monkeypatch.setattr(batches, "SEGMENT_BYTES", 2 * BYTES)

    def interrupted():
        yield batch("ab")
        index.delete(["a"])
        yield batch("cd")

    index.extend(interrupted())
    assert index.ids() == list("bcd")


def test_a_process_that_dies_keeps_the_segments_that_were_full(index):
    crash = """
        import os, sys
        import numpy as np
        from metaembed.index import Index, batches
        batches.SEGMENT_BYTES = 2 * 4 * 4 * 2
        def dying():
            for n in range(5):
                yield [str(n)], np.ones((1, 4, 4)), None
            os._exit(9)
        Index.open(sys.argv[1]).extend(dying())
    """
    assert subprocess.run(**command(crash, index.path), check=False).returncode == 9
    assert index.ids() == ["0", "1", "2", "3"]
    assert index.verify() == []
