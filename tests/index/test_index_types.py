"""Storage types and sketches: what lies on disk, and that scores are those of what lies there."""

import numpy as np
import pytest
import torch

from metaembed import storage
from metaembed.budget import Budget
from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index import Index, planes
from metaembed.storage import decode, encode, round_queries
from tests import oracles
from tests.index.examples import GROUPS, make_index, pairs, saved, unit

TYPES = ["float32", "float16", "bfloat16", "int8", "int4"]


def plane_types(dtype):
    """Of the planes 0-1 and 1-4."""
    return ("int8", "int4") if dtype == "int4" else (dtype, dtype)


def rounded(vectors, dtype):
    """What an index of this type holds of vectors, spelled out."""
    first, rest = plane_types(dtype)
    parts = [decode(encode(vectors[:, :1], first)), decode(encode(vectors[:, 1:], rest))]
    return np.concatenate(parts, axis=1)


def test_an_int4_index_worked_by_hand(tmp_path):
    with Index.create(tmp_path / "idx", dim=2, groups=["1x1", "1x2"], dtype="int4") as index:
        index.add(["a", "b"], np.array([[[1, 0], [0.5, 7]], [[0, 127], [3, -7]]], np.float32))
        # The first vectors are in int8: scales 1/127 and 1. The second ones in int4: scale 1, where
        # 0.5 goes to 0.
        assert index.embeddings(["a", "b"])[:, 1].tolist() == [[0, 7], [3, -7]]
        assert index.embeddings(["b"])[0, 0].tolist() == [0, 127]
        query = np.array([[[127, 64]]], np.float32)  # whole numbers up to 127 are exact
        scores = dict(pairs(index.search(query))[0])
        # b: max(64 * 127, 3 * 127 - 7 * 64); a: max(127 * 1, 7 * 64).
        assert scores == {"b": 8128.0, "a": 448.0}


def test_an_int4_index_with_a_sketch_has_the_files_that_the_format_says(tmp_path):
    vectors = unit(5, 4, 6)
    with Index.create(
        tmp_path / "idx", dim=6, groups=GROUPS, dtype="int4", sketch="binary"
    ) as index:
        index.add(list("abcde"), vectors)
        assert index.verify() == []
    first, rest = encode(vectors[:, :1], "int8"), encode(vectors[:, 1:], "int4")
    expected = {
        "plane-0-1.npy": first.codes,
        "scale-0-1.npy": first.scales,
        "sketch-0-1.npy": encode(decode(first), "binary").codes,
        "plane-1-4.npy": rest.codes,
        "scale-1-4.npy": rest.scales,
        "sketch-1-4.npy": encode(decode(rest), "binary").codes,
    }
    found = saved(tmp_path / "idx", 1)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("sketch", ["int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_errors_of_a_sketch_are_upper_bounds_and_hardly_above_the_truth(
    tmp_path, dtype, sketch
):
    vectors = unit(40, 4, 9)
    with Index.create(tmp_path / "idx", dim=9, groups=GROUPS, dtype=dtype, sketch=sketch) as index:
        index.add([str(n) for n in range(40)], vectors)
    found = saved(tmp_path / "idx", 1)
    stored = rounded(vectors, dtype).astype(np.float64)
    for start, stop in ((0, 1), (1, 4)):
        name = f"{start}-{stop}.npy"
        codes, scales = found[f"sketch-{name}"], found[f"sketch-scale-{name}"]
        sketched = decode(storage.Stored(sketch, 9, codes, scales)).astype(np.float64)
        missed = np.linalg.norm(stored[:, start:stop] - sketched, axis=2).max(axis=1)
        norms = np.linalg.norm(sketched, axis=2).max(axis=1)
        errors = found[f"sketch-error-{name}"]
        assert (errors.dtype, errors.shape) == (np.float32, (40, 2))
        for column, truth in enumerate((missed, norms)):
            assert (errors[:, column] >= truth).all()
            assert np.allclose(errors[:, column], truth, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_search_scores_what_is_stored_against_rounded_queries(tmp_path, dtype):
    vectors, queries = unit(30, 4, 7), unit(3, 2, 7, seed=1)
    with Index.create(tmp_path / "idx", dim=7, groups=GROUPS, dtype=dtype) as index:
        for start in (0, 11, 12):
            stop = {0: 11, 11: 12, 12: 30}[start]
            index.add([str(n) for n in range(start, stop)], vectors[start:stop])
        held = rounded(vectors, dtype)
        assert np.array_equal(index.embeddings(index.ids()), held)
        asked = torch.from_numpy(round_queries(queries, dtype))
        for budget in (Budget(1, 1), Budget(2, 3), Budget(2, 4)):
            truth = oracles.maxsim(
                asked[:, : budget.query], torch.from_numpy(held[:, : budget.candidate])
            )
            for hits, scores in zip(index.search(queries, budget, k=30), truth, strict=True):
                assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)
                found = [float(scores[int(hit.id)]) for hit in hits]
                assert np.allclose([hit.score for hit in hits], found, atol=1e-5)
                assert len({hit.id for hit in hits}) == 30


@pytest.mark.parametrize(
    ("dtype", "sketch", "bytes_of_one", "bytes_of_four"),
    [
        ("float32", None, 9 * 4, 4 * 9 * 4),
        ("bfloat16", "binary", 9 * 2, 4 * 9 * 2),
        ("int8", "int4", 9 + 4, 4 * (9 + 4)),
        ("int4", None, 9 + 4, 9 + 4 + 3 * (5 + 4)),
    ],
)
def test_bytes_per_item_count_codes_and_scales(
    tmp_path, dtype, sketch, bytes_of_one, bytes_of_four
):
    with Index.create(tmp_path / "idx", dim=9, groups=GROUPS, dtype=dtype, sketch=sketch) as index:
        assert (index.dtype, index.sketch) == (dtype, sketch)
        assert index.bytes_per_item("1x1") == bytes_of_one
        assert index.bytes_per_item() == index.stats().bytes_per_item == bytes_of_four
        if dtype == "int4":
            assert index.bytes_per_item("2x3") == 9 + 4 + 2 * (5 + 4)
        index.add(["a"], unit(1, 4, 9))
        found = saved(index.path, 1)
        on_disk = sum(array.nbytes for name, array in found.items() if "sketch" not in name)
        assert on_disk == bytes_of_four


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sketch", [None, "binary"])
def test_compaction_copies_codes_and_sketches_bit_for_bit(tmp_path, monkeypatch, dtype, sketch):
    with make_index(tmp_path / "idx", dtype=dtype, sketch=sketch) as index:
        index.add(["x", "y"], unit(2, 4, 4))
        before = [saved(index.path, number) for number in (1, 2)]
        index.delete(["1", "4", "x"])
        monkeypatch.setattr(planes, "sketch_of", None)  # no sketch is made again
        index.compact()
        assert index.verify() == []
        after = saved(index.path, 3)
    for name, array in after.items():
        expected = np.concatenate([before[0][name][[0, 2, 3, 5]], before[1][name][[1]]])
        assert np.array_equal(array, expected)


def test_the_block_size_changes_nothing_on_disk(tmp_path, monkeypatch):
    for elements in (1, 2**22):
        monkeypatch.setattr(planes, "BLOCK_ELEMENTS", elements)
        make_index(tmp_path / str(elements), dtype="int4", sketch="binary").close()
    small, large = (saved(tmp_path / str(elements), 1) for elements in (1, 2**22))
    assert small.keys() == large.keys()
    assert all(np.array_equal(small[name], large[name]) for name in small)


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [("float16", 65519.0), ("bfloat16", 3.38e38), ("int8", 1e38), ("float32", 3.4e38)],
)
def test_numbers_are_refused_only_where_their_type_has_no_room(tmp_path, dtype, largest):
    with Index.create(tmp_path / "idx", dim=2, groups=["1x1"], dtype=dtype) as index:
        index.add(["a"], np.array([[[largest, -largest]]]))
        assert np.isfinite(index.embeddings(["a"])).all()
        for number in (np.nan, np.inf, 1e39, 3.41e38, 65520.0 if dtype == "float16" else 1e300):
            with pytest.raises(IndexMismatchError, match=f"too large for {dtype}"):
                index.add(["b"], np.array([[[0.0, number]]]))
        assert index.ids() == ["a"]


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_any_float_type_is_quantised_alike(tmp_path, kind):
    vectors = unit(4, 4, 6).astype(np.float16)
    with Index.create(tmp_path / "idx", dim=6, groups=GROUPS, dtype="int8") as index:
        index.add(list("abcd"), vectors.astype(np.float32))
        index.add(list("efgh"), vectors.astype(kind))
        assert np.array_equal(index.embeddings(list("abcd")), index.embeddings(list("efgh")))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dtype": "binary"}, "dtype: Input should be 'float32', 'float16'"),
        ({"dtype": "int4", "sketch": "int4"}, "a sketch of int4 is not smaller than int4"),
        ({"sketch": "float16"}, "sketch: Input should be 'int8', 'int4' or 'binary'"),
    ],
)
def test_types_that_make_no_sense_are_refused_in_one_line(tmp_path, options, problem):
    with pytest.raises(IndexFormatError, match=problem) as caught:
        Index.create(tmp_path / "idx", dim=4, groups=GROUPS, **options)
    assert "\n" not in str(caught.value)


def test_the_largest_dim_is_stored(tmp_path):
    vectors = unit(2, 1, 2**16)
    with Index.create(
        tmp_path / "idx", dim=2**16, groups=["1x1"], dtype="int8", sketch="int4"
    ) as index:
        index.add(["a", "b"], vectors)
        assert [hits[0].id for hits in index.search(vectors, k=1)] == ["a", "b"]
        assert index.verify() == []
    with pytest.raises(IndexFormatError, match="dim"):
        Index.create(tmp_path / "more", dim=2**16 + 1, groups=["1x1"])
