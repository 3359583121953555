"""Small segments are put together while items are added, and nobody sees a difference."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metaembed.index import Index, batches, merging, npy
from metaembed.index.merging import num_merged
from tests.index.examples import (
    FORMAT_1,
    GROUPS,
    command,
    grid,
    make_index,
    pairs,
    query,
    saved,
    unit,
)

NEVER = 2**62
"""So many segments of similar size never come together."""

QUERIES = grid(2, 2, 4, seed=3)


def segment_rows(index):
    return [entry.segment.num_rows for entry in index._store.snapshot().entries]


def add_one_by_one(index, ids, seed=0):
    for number, id in enumerate(ids):
        index.add([id], grid(1, index.num_vectors, index.dim, seed + number), [{"id": id}])


def everything(index):
    ids = index.ids()
    return (
        ids,
        index.get(ids),
        index.texts(ids),
        index.embeddings(ids).tobytes(),
        index.search(QUERIES, k=99),
        index.search(QUERIES, "1x1", k=3),
        index.search(QUERIES, k=5, filter={"n": {"lt": 3}}),
        index.search(QUERIES, k=99, texts=["word", "odd"]),
    )


@pytest.fixture
def index(tmp_path):
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS, dtype="float16") as index:
        yield index


def test_eight_segments_of_similar_size_become_one(index):
    rows = []
    for n in range(17):
        add_one_by_one(index, [str(n)], n)
        rows.append(segment_rows(index))
    assert rows[6:9] == [[1] * 7, [8], [8, 1]]
    assert rows[14:] == [[8] + [1] * 7, [8, 8], [8, 8, 1]]
    assert index.ids() == [str(n) for n in range(17)]
    assert np.array_equal(index.embeddings(["9"])[0], grid(1, 4, 4, 9)[0])
    folders = [folder.name for folder in (index.path / "segments").iterdir()]
    assert sorted(folders) == ["16", "17", "8"]
    assert query(index.path, "SELECT first_sequence, sequences FROM segments") == [
        (1, None),
        (9, None),
        (17, None),
    ]
    assert index.verify() == []


def test_a_larger_batch_takes_the_smaller_ones_before_it(index):
    index.add(["a", "b"], grid(2, 4, 4, 1))
    index.add(["c"], grid(1, 4, 4, 2))
    index.add([str(n) for n in range(8)], grid(8, 4, 4, 3))
    assert segment_rows(index) == [11]
    assert index.ids() == ["a", "b", "c", *map(str, range(8))]


def test_deleted_rows_are_left_out_and_replaced_items_go_to_the_end(index):
    add_one_by_one(index, "abcdefg")
    index.delete(["b", "g"])
    index.upsert(["d"], grid(1, 4, 4, 9), [{"id": "new"}])
    assert segment_rows(index) == [5]
    assert index.stats()[:3] == (5, 0, 1)
    assert query(index.path, "SELECT * FROM deleted") == []
    assert index.ids() == list("acefd")
    assert index.get(["d"]) == [{"id": "new"}]
    assert np.array_equal(index.embeddings(["d"])[0], grid(1, 4, 4, 9)[0])
    assert index.verify() == []


def test_one_item_that_is_replaced_for_ever_leaves_little_behind(index):
    index.add(["other"], grid(1, 4, 4))
    for n in range(60):
        index.upsert(["one"], grid(1, 4, 4, n), [{"n": n}])
        assert index.stats().deleted + index.stats().segments < 16
    assert index.get(index.ids()) == [{}, {"n": 59}]
    assert index.verify() == []


def test_a_full_segment_is_left_alone(index, monkeypatch):
    monkeypatch.setattr(merging, "SEGMENT_BYTES", 8 * index.bytes_per_item())
    for number in range(20):
        index.add([f"{number}-{n}" for n in range(4)], grid(4, 4, 4, number))
    assert segment_rows(index) == [32, 32, 4, 4, 4, 4]


def test_segments_of_before_are_put_together_by_the_next_addition(index, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(merging, "FANOUT", NEVER)
        add_one_by_one(index, map(str, range(40)))
    assert len(segment_rows(index)) == 40
    before = everything(index)
    index.delete([])
    assert len(segment_rows(index)) == 40
    index.add(["new"], grid(1, 4, 4))
    assert segment_rows(index) == [41]
    index.delete(["new"])
    assert everything(index) == before


SIZES = st.lists(st.one_of(st.integers(1, 9), st.integers(1, 2000)), max_size=150)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([2, 3, 8]))
@example(7 * [1] + [64] + 7 * [1] + [64], 8)
def test_segments_are_few_and_a_row_is_written_a_few_times(given, fanout):
    def level(size):
        return next(n for n in range(99) if size < fanout ** (n + 1))

    sizes, num_written = [], 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merging, "FANOUT", fanout)
        for size in given:
            kept = len(sizes) - num_merged(sizes, size, full=NEVER)
            sizes = [*sizes[:kept], sum(sizes[kept:]) + size]
            num_written += sizes[-1]
            levels = [level(one) for one in sizes]
            assert levels == sorted(levels, reverse=True)
            assert all(levels.count(one) < fanout for one in levels)
    total = sum(given)
    assert sum(sizes) == total
    assert num_written <= total * (2 + level(total))


BATCH = st.sets(st.integers(0, 30), min_size=1, max_size=9).map(sorted)
OPERATION = st.tuples(st.sampled_from(["add", "upsert", "upsert", "delete", "reopen"]), BATCH)


def carry_out(index, operation, numbers, version):
    ids = [str(n) for n in numbers]
    if operation == "delete":
        index.delete(ids)
        return
    if operation == "add":
        ids = [id for id in ids if id not in index]
    texts = [f"word {'odd' if int(id) % 2 else 'even'}" if int(id) % 3 else None for id in ids]
    metadata = [{"n": int(id), "v": version} for id in ids]
    write = index.add if operation == "add" else index.upsert
    write(ids, grid(len(ids), 4, 4, version), metadata, texts)


@settings(max_examples=25, deadline=None)
@given(st.lists(OPERATION, max_size=25), st.sampled_from([2, 3, 8]))
def test_merging_changes_nothing_that_anybody_sees(operations, fanout):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        options = {"dim": 4, "groups": GROUPS, "dtype": "float32", "sketch": "int8"}
        plain = Index.create(Path(folder) / "plain", **options)
        merged = Index.create(Path(folder) / "merged", **options)
        num_rows = 0
        for version, (operation, numbers) in enumerate(operations):
            if operation == "reopen":
                merged.close()
                merged = Index.open(merged.path)
                continue
            patched.setattr(merging, "FANOUT", NEVER)
            carry_out(plain, operation, numbers, version)
            patched.setattr(merging, "FANOUT", fanout)
            carry_out(merged, operation, numbers, version)
            num_rows += len(numbers)
            assert merged.search(QUERIES, k=99) == plain.search(QUERIES, k=99)
            assert len(segment_rows(merged)) <= (fanout - 1) * num_rows.bit_length()
        assert everything(merged) == everything(plain)
        assert merged.search(QUERIES, k=99, cascade="~2x4:99") == plain.search(QUERIES, k=99)
        assert merged.search_certified(QUERIES, k=4)[1][0] == plain.search(QUERIES[1:], k=4)[0]
        assert merged.verify() == plain.verify() == []
        merged.close()
        plain.close()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("sketch", [None, "int4", "binary"])
def test_a_merged_segment_has_the_bits_of_those_it_was_made_of(
    tmp_path, monkeypatch, dtype, sketch
):
    if (dtype, sketch) == ("int4", "int4"):
        sketch = "binary"
    found = []
    for fanout in (4, NEVER):
        monkeypatch.setattr(merging, "FANOUT", fanout)
        path = tmp_path / str(fanout)
        with Index.create(path, dim=6, groups=GROUPS, dtype=dtype, sketch=sketch) as index:
            for n in range(16):
                index.add([str(n)], unit(1, 4, 6, seed=n))
            assert segment_rows(index) == ([16] if fanout == 4 else [1] * 16)
            index.compact()
        (folder,) = (path / "segments").iterdir()
        found.append(saved(path, folder.name))
    merged, compacted = found
    assert merged.keys() == compacted.keys()
    assert all(merged[name].tobytes() == compacted[name].tobytes() for name in merged)


def test_a_reader_of_the_state_before_still_answers(index, monkeypatch):
    monkeypatch.setattr(npy, "SMALL_BYTES", 0)  # even the smallest files are mapped
    add_one_by_one(index, "abcdefg")
    with Index.open(index.path) as reader:
        expected = reader.search(QUERIES, k=99)
        snapshot = reader._store.snapshot()
        candidates = reader._store.candidates(snapshot, 4)
        before = candidates.top_k(QUERIES, 7)
        add_one_by_one(index, "h", seed=7)
        assert segment_rows(index) == [8]
        assert not (index.path / "segments" / "1").exists()
        after = candidates.top_k(QUERIES, 7)
        assert np.array_equal(after.scores, before.scores)
        assert np.array_equal(after.positions, before.positions)
        index.delete(["h"])
        assert reader.search(QUERIES, k=99) == expected


def test_a_search_survives_a_merge_in_its_middle(index, monkeypatch):
    add_one_by_one(index, "abcdefg")
    with Index.open(index.path) as reader:
        candidates, merges = reader._store.candidates, []

        def interrupted(*arguments, **options):
            if not merges:  # the snapshot names segments that are gone when they are opened
                merges.append(add_one_by_one(index, "h", seed=7))
            return candidates(*arguments, **options)

        monkeypatch.setattr(reader._store, "candidates", interrupted)
        assert pairs(reader.search(QUERIES, k=99)) == pairs(index.search(QUERIES, k=99))
        assert len(merges) == 1
        choice = reader.choose_cascade(QUERIES, k=2)
        assert choice.recall == 1


@pytest.mark.parametrize("step", ["Catalog.remove_segments", "Catalog.add_items", "rmtree"])
def test_a_merge_that_is_killed_loses_nothing(tmp_path, step):
    crash = """
        import os, shutil, sys
        import numpy as np
        from metaembed.index import Index, catalog
        index = Index.open(sys.argv[1])
        if sys.argv[2] == "rmtree":  # after the commit
            shutil.rmtree = lambda *_, **__: os._exit(9)
        else:
            setattr(catalog.Catalog, sys.argv[2].split(".")[1], lambda *_: os._exit(9))
        index.add(["new"], np.ones((1, 4, 4)))
    """
    path = tmp_path / "idx"
    with make_index(path, items=1) as index:
        add_one_by_one(index, "abcdef")
        before = everything(index)
    assert subprocess.run(**command(crash, path, step), check=False).returncode == 9
    names = {folder.name for folder in (path / "segments").iterdir()}
    assert names == set("12345678")
    with Index.open(path) as index:
        assert ("new" in index) == (step == "rmtree")
        index.delete(["new"])  # any writer clears up
        assert everything(index) == before
        kept = {"8"} if step == "rmtree" else set("1234567")
        assert {folder.name for folder in (path / "segments").iterdir()} == kept
        assert index.verify() == []


def test_damage_is_not_merged_and_does_not_keep_new_items_out(index, caplog):
    add_one_by_one(index, "abcdefg")
    file = index.path / "segments" / "3" / "plane-1-4.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    add_one_by_one(index, "hijk", seed=7)
    assert "3/plane-1-4.npy differs from its checksum. Its segment stays as it is." in caplog.text
    assert segment_rows(index) == [1, 1, 1, 8]
    assert index.verify() == ["Index 'idx': 3/plane-1-4.npy differs from its checksum."]
    assert index.ids() == list("abcdefghijk")


def test_what_extend_and_merge_append_takes_small_segments_with_it(tmp_path, monkeypatch):
    with make_index(tmp_path / "a", items=2) as index, make_index(tmp_path / "b", items=9) as other:
        add_one_by_one(index, "abc")
        monkeypatch.setattr(batches, "SEGMENT_BYTES", 8 * index.bytes_per_item())
        index.extend([([f"x{n}" for n in range(10)], grid(10, 4, 4), None)])
        assert segment_rows(index) == [13, 2]
        index.merge([other], replace=True)
        assert segment_rows(index) == [13, 11]
        assert index.ids()[:5] == ["a", "b", "c", "x0", "x1"]
        assert index.stats()[:3] == (22, 2, 2)
        assert index.verify() == []


def test_an_index_of_version_1_is_upgraded_and_merged(tmp_path):
    shutil.copytree(FORMAT_1, tmp_path / "idx")
    with Index.open(tmp_path / "idx") as index:
        before = pairs(index.search(QUERIES[:, :, : index.dim], k=99))
        vectors = np.zeros((9, index.num_vectors, index.dim), np.float32)
        index.add([f"new-{n}" for n in range(9)], vectors)
        assert len(segment_rows(index)) == 1
        index.delete([f"new-{n}" for n in range(9)])
        assert pairs(index.search(QUERIES[:, :, : index.dim], k=99)) == before
        assert index.verify() == []
