"""From index to index: copies that are smaller, and many into one."""

import shutil

import numpy as np
import pytest

from metaembed.errors import BudgetError, IndexFormatError, IndexMismatchError
from metaembed.index import Index, copying, merging, planes
from metaembed.storage import decode, encode
from tests.index.examples import FORMAT_1, grid, make_index, pairs, saved, sql, unit

GROUPS = ["1x1", "2x4", "3x8"]


def make(path, items=9, dim=6, seed=0, **options):
    """An index of two segments and a deleted item, in unit vectors."""
    options = {"dtype": "float16", **options}
    index = Index.create(path, dim=dim, groups=GROUPS, model="tiny", fingerprint="ab12", **options)
    vectors = unit(items, 8, dim, seed)
    ids = [f"{seed}-{n}" for n in range(items)]
    metadata = [{"n": n} for n in range(items)]
    index.add(ids[:5], vectors[:5], metadata[:5])
    index.add(ids[5:], vectors[5:], metadata[5:])
    index.delete([ids[2]])
    return index


def everything(index, budget=None):
    queries = unit(3, 3, index.dim, seed=5)[:, : index.limit.query]
    ids = index.ids()
    return ids, index.get(ids), index.search(queries, budget, k=99)


def arrays(path):
    """Of an index of one segment, whatever its number."""
    (folder,) = (path / "segments").iterdir()
    return saved(path, folder.name)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("sketch", [None, "binary"])
def test_a_copy_holds_the_same_bits_as_a_compaction(tmp_path, monkeypatch, dtype, sketch):
    with make(tmp_path / "idx", dtype=dtype, sketch=sketch) as index:
        monkeypatch.setattr(planes, "encode", None)  # nothing is rounded again
        with index.copy(tmp_path / "copy") as copy:
            assert (copy.path, copy.dtype, copy.sketch) == (tmp_path / "copy", dtype, sketch)
            assert (copy.model, copy.fingerprint, copy.groups) == ("tiny", "ab12", index.groups)
            assert everything(copy) == everything(index)
            assert copy.stats()[:3] == (8, 0, 1)
            assert copy.verify() == []
        index.compact()
    ours, theirs = arrays(tmp_path / "copy"), arrays(tmp_path / "idx")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_copy_can_be_written(tmp_path):
    with make(tmp_path / "idx") as index, index.copy(str(tmp_path / "copy")) as copy:
        copy.add(["more"], unit(1, 8, 6))
        copy.delete(["0-0"])
        copy.compact()
        assert copy.ids() == [*index.ids()[1:], "more"]
        assert copy.verify() == []


def test_an_empty_index_is_copied_too(tmp_path):
    with (
        Index.create(tmp_path / "idx", dim=3, groups=["1x1"]) as index,
        index.copy(tmp_path / "copy", dtype="int8") as copy,
    ):
        assert (copy.stats()[:3], copy.ids()) == ((0, 0, 0), [])


@pytest.mark.parametrize(
    ("budget", "groups", "edges"),
    [
        ("3x8", "1x1 2x4 3x8", [(0, 1), (1, 4), (4, 8)]),
        ("2x4", "1x1 2x4", [(0, 1), (1, 4)]),
        ("1x1", "1x1", [(0, 1)]),
        ("3x6", "1x1 2x4 3x6", [(0, 1), (1, 4), (4, 6)]),
        ("2x3", "1x1 2x3", [(0, 1), (1, 3)]),
        ("1x8", "1x1 1x4 1x8", [(0, 1), (1, 4), (4, 8)]),
        ("3x1", "1x1 2x1 3x1", [(0, 1)]),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_smaller_budget_keeps_a_prefix_of_every_item(tmp_path, budget, groups, edges, dtype):
    with (
        make(tmp_path / "idx", dtype=dtype, sketch="int4") as index,
        index.copy(tmp_path / "copy", budget=budget) as copy,
    ):
        assert " ".join(map(str, copy.groups)) == groups
        assert list(copy._manifest.planes) == edges
        prefix = index.embeddings(index.ids())[:, : copy.num_vectors]
        assert np.array_equal(copy.embeddings(copy.ids()), prefix)
        for ours, theirs in zip(everything(copy)[2], everything(index, budget)[2], strict=True):
            assert [hit.id for hit in ours] == [hit.id for hit in theirs]
            assert np.allclose([hit.score for hit in ours], [hit.score for hit in theirs])
        for small in copy.groups:
            assert copy.bytes_per_item(small) == index.bytes_per_item(small)
        assert copy.verify() == []
    with Index.create(
        tmp_path / "new", dim=6, groups=groups.split(), dtype=dtype, sketch="int4"
    ) as new:
        new.add([str(n) for n in range(8)], prefix)
    if dtype == "float16":  # what int8 holds is not rounded alike again, to the last bit of a scale
        ours, theirs = arrays(tmp_path / "copy"), arrays(tmp_path / "new")
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("old", "new"),
    [("float32", "int8"), ("float16", "int4"), ("int8", "float32"), ("bfloat16", "float16")],
)
def test_another_type_is_what_its_vectors_are_rounded_to(tmp_path, old, new):
    with (
        make(tmp_path / "idx", dtype=old) as index,
        index.copy(tmp_path / "copy", dtype=new, sketch="binary") as copy,
    ):
        held = index.embeddings(index.ids())
        types = ("int8", "int8", "int4") if new == "int4" else (new, new, new)
        parts = [
            decode(encode(held[:, start:stop], dtype))
            for (start, stop), dtype in zip([(0, 1), (1, 4), (4, 8)], types, strict=True)
        ]
        assert np.array_equal(copy.embeddings(copy.ids()), np.concatenate(parts, axis=1))
        assert (copy.dtype, copy.sketch) == (new, "binary")
        assert copy.verify() == []


def test_an_int4_index_that_loses_its_last_plane_is_int8_and_not_rounded_again(tmp_path):
    with make(tmp_path / "idx", dtype="int4") as index:
        held = index.embeddings(index.ids())
        for budget, dtype in (("3x8", "int4"), ("3x5", "int4"), ("2x4", "int8"), ("1x1", "int8")):
            with index.copy(tmp_path / budget, budget=budget) as copy:
                assert copy.dtype == dtype
                assert np.array_equal(copy.embeddings(copy.ids()), held[:, : copy.num_vectors])
        with index.copy(tmp_path / "asked", budget="2x4", dtype="int4") as copy:
            assert copy.dtype == "int4"
            assert not np.array_equal(copy.embeddings(copy.ids()), held[:, :4])


def test_a_sketch_can_be_dropped_or_made(tmp_path):
    with make(tmp_path / "idx", sketch="int8") as index:
        with index.copy(tmp_path / "none", sketch=None) as copy:
            assert copy.sketch is None
            assert not any("sketch" in name for name in arrays(copy.path))
        with Index.open(tmp_path / "none") as none:
            none.copy(tmp_path / "again", sketch="int8").close()
        index.copy(tmp_path / "kept").close()
    ours, theirs = arrays(tmp_path / "again"), arrays(tmp_path / "kept")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def nothing_at(path):
    return not path.exists() or not list(path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": "3x9"}, BudgetError, r"larger than index 'idx' provides \(3x8\)"),
        ({"dtype": "binary"}, IndexFormatError, "dtype"),
        ({"dtype": "int8", "sketch": "int8"}, IndexFormatError, "not smaller than int8"),
        ({"dtype": "float16"}, IndexMismatchError, "too large for float16"),
    ],
)
def test_a_copy_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, options, error, message):
    with Index.create(tmp_path / "idx", dim=2, groups=GROUPS, dtype="float32") as index:
        index.add(["a"], np.full((1, 8, 2), 1e6))
        with pytest.raises(error, match=message) as caught:
            index.copy(tmp_path / "copy", **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "copy").exists()


def test_damage_is_not_copied(tmp_path):
    with make(tmp_path / "idx") as index:
        file = index.path / "segments" / "2" / "plane-4-8.npy"
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
        (tmp_path / "copy").mkdir()
        with pytest.raises(IndexFormatError, match=r"2/plane-4-8\.npy differs from its checksum"):
            index.copy(tmp_path / "copy")
        assert list((tmp_path / "copy").iterdir()) == []
        sql(index.path, "UPDATE items SET sequence = 99 WHERE sequence = 4")
        with pytest.raises(IndexFormatError, match="no row"):
            index.copy(tmp_path / "copy")


def test_a_copy_goes_neither_over_something_nor_into_its_source(tmp_path):
    with make(tmp_path / "idx") as index:
        (tmp_path / "file").write_text("mine")
        for path in (tmp_path, tmp_path / "file"):
            with pytest.raises(IndexFormatError, match="not an empty folder"):
                index.copy(path)
        with pytest.raises(IndexFormatError, match="lies in the index"):
            index.copy(index.path / "segments" / "9")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_copy_is_of_the_state_when_it_began(tmp_path, monkeypatch):
    with make(tmp_path / "idx") as index:
        expected = everything(index)
        sound_blocks = copying.sound_blocks

        def interrupted(*arguments):
            index.delete(["0-0"])
            index.add(["late"], unit(1, 8, 6))
            return sound_blocks(*arguments)

        monkeypatch.setattr(copying, "sound_blocks", interrupted)
        with index.copy(tmp_path / "copy") as copy:
            assert everything(copy) == expected
        monkeypatch.undo()

        def compacted(*arguments):
            monkeypatch.undo()
            index.compact()
            return sound_blocks(*arguments)

        before = everything(index)
        monkeypatch.setattr(copying, "sound_blocks", compacted)
        with index.copy(tmp_path / "late") as copy:  # small segments are held
            assert everything(copy) == before
        index.delete(["0-1"])
        monkeypatch.setattr(merging, "SEGMENT_BYTES", 1)
        monkeypatch.setattr(copying, "sound_blocks", compacted)
        with pytest.raises(IndexFormatError, match="is missing"):
            index.copy(tmp_path / "other")
        assert not (tmp_path / "other").exists()


def test_indexes_are_merged_in_order(tmp_path):
    with (
        make(tmp_path / "a", seed=1) as a,
        make(tmp_path / "b", seed=2) as b,
        make(tmp_path / "c", seed=3) as c,
    ):
        ids, held = a.ids() + b.ids() + c.ids(), [x.embeddings(x.ids()) for x in (a, b, c)]
        assert a.merge([b, c]) == 16
        assert a.ids() == ids
        assert np.array_equal(a.embeddings(ids), np.concatenate(held))
        assert a.get(["3-8"]) == [{"n": 8}]
        assert a.verify() == []
        assert a.stats()[:3] == (24, 0, 2)  # the first 8 rows took the smaller segments in
        assert len(b) == 8
        assert a.merge([]) == 0


@pytest.mark.parametrize("dtype", ["float16", "int4"])
def test_codes_of_one_type_are_merged_bit_for_bit(tmp_path, monkeypatch, dtype):
    options = {"dtype": dtype, "sketch": "binary"}
    with make(tmp_path / "a", seed=1, **options) as a, make(tmp_path / "b", seed=2, **options) as b:
        monkeypatch.setattr(planes, "encode", None)
        a.compact()
        b.compact()
        expected = [arrays(index.path) for index in (a, b)]
        a.merge([b])
        merged = saved(a.path, 4)
        assert all(np.array_equal(merged[name], expected[1][name]) for name in merged)
        a.compact()
        merged = arrays(a.path)
        for name in merged:
            assert np.array_equal(merged[name], np.concatenate([one[name] for one in expected]))


def test_another_type_is_merged_into_the_type_that_is_there(tmp_path):
    with (
        make(tmp_path / "a", seed=1, dtype="int8") as a,
        make(tmp_path / "b", seed=2, dtype="float32", sketch="int8") as b,
    ):
        held = b.embeddings(b.ids())
        a.merge([b])
        assert np.array_equal(a.embeddings(b.ids()), decode(encode(held, "int8")))
        assert a.verify() == []


def test_ids_that_are_here_already_are_named_or_replaced(tmp_path):
    with (
        make(tmp_path / "a", seed=1) as a,
        make(tmp_path / "b", seed=2) as b,
        make(tmp_path / "c", seed=3) as c,
    ):
        c.add(["1-0", "1-1", "1-3", "1-4"], held := unit(4, 8, 6, seed=9))
        before = a.ids()
        with pytest.raises(
            IndexMismatchError, match=r"has 4 of these .* '1-0', '1-1', '1-3'.*replace=True"
        ) as caught:
            a.merge([b, c])
        assert "\n" not in str(caught.value)
        assert a.ids() == before + b.ids()  # b as a whole, nothing of c
        assert a.merge([c], replace=True) == 12
        assert a.ids() == ["1-5", "1-6", "1-7", "1-8", *b.ids(), *c.ids()]
        assert np.allclose(a.embeddings(["1-0"]), held[:1], atol=1e-3)
        assert a.verify() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 5}, "has dim 5 and 'a' has 4"),
        ({"groups": ["1x1", "2x3"]}, "has groups 1x1 2x3 and 'a' has 1x1 2x4"),
        ({"fingerprint": "cd"}, "has fingerprint 'cd' and 'a' has 'ab'"),
    ],
)
def test_indexes_that_are_not_alike_are_not_merged(tmp_path, options, message):
    alike = {"fingerprint": "ab", "groups": ["1x1", "2x4"], "dim": 4}
    with (
        make_index(tmp_path / "a", **alike) as a,
        make_index(tmp_path / "good", items=0, **alike) as good,
        make_index(tmp_path / "b", **(alike | options)) as b,
        Index.open(tmp_path / "a") as again,
    ):
        for others in ([good, b], [b]):
            with pytest.raises(IndexMismatchError, match=message) as caught:
                a.merge(others)
            assert "\n" not in str(caught.value)
        with pytest.raises(IndexMismatchError, match="into itself"):
            a.merge([again])
        assert len(a) == 6


def test_damage_is_not_merged(tmp_path):
    with make(tmp_path / "a", seed=1) as a, make(tmp_path / "b", seed=2) as b:
        (b.path / "segments" / "1" / "plane-0-1.npy").write_bytes(b"")
        with pytest.raises(IndexFormatError, match=r"'b' is damaged.*has 0 bytes"):
            a.merge([b])
        assert (len(a), a.verify()) == (8, [])
        assert sorted(path.name for path in (a.path / "segments").iterdir()) == ["1", "2"]


def test_readers_of_the_target_go_on_while_vectors_are_merged(tmp_path, monkeypatch):
    with (
        make(tmp_path / "a", seed=1) as a,
        make_index(tmp_path / "b", items=20, dim=6, groups=GROUPS, fingerprint="ab12") as b,
        Index.open(tmp_path / "a") as reader,
    ):
        write, seen = a._store.segments.write, []

        def watched(*arguments):
            seen.append(reader.ids())
            return write(*arguments)

        monkeypatch.setattr(a._store.segments, "write", watched)
        before = a.ids()
        a.merge([b])
        assert seen == [before]
        assert reader.ids() == before + b.ids()


def test_version_1_is_copied_and_merged(tmp_path):
    for name in ("old", "target"):
        shutil.copytree(FORMAT_1, tmp_path / name)
    with Index.open(tmp_path / "old") as old, Index.open(tmp_path / "target") as target:
        queries = grid(2, 2, 4)
        with old.copy(tmp_path / "copy", sketch="binary") as copy:
            assert copy.search(queries) == old.search(queries)
            assert copy.verify() == []
        target.delete(target.ids())
        target.merge([old])
        assert pairs(target.search(queries)) == pairs(old.search(queries))
        assert old._store.catalog.is_legacy()
