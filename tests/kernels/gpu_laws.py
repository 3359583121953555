"""What a search on a GPU has to give; `test_gpu.py` runs this file in Triton's interpreter.

On a machine with a GPU, `pytest tests/kernels/gpu_laws.py` runs it there.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaembed.errors import IndexMismatchError
from metaembed.kernels import Part, device, gpu
from metaembed.storage import STORAGE_TYPES, decode, encode, round_queries


def stored(vectors, edges, *dtypes):
    """Planes [edges[0], edges[1]), … of vectors (rows, edges[-1], dim), the last type repeated."""
    spans = list(pairwise(edges))
    dtypes = [*dtypes, *[dtypes[-1]] * len(spans)]
    return tuple(
        encode(vectors[:, a:b], dtype) for (a, b), dtype in zip(spans, dtypes, strict=False)
    )


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def defined(queries, parts, r_c):
    """Scores (Q, items) by the definition, in float64."""
    rows = []
    for part in parts:
        vectors = np.concatenate([decode(plane) for plane in part.planes], axis=1)[:, :r_c]
        rows.append(vectors if part.rows is None else vectors[part.rows])
    candidates = np.concatenate(rows).astype(np.float64)
    rounded = round_queries(queries, parts[0].planes[0].dtype).astype(np.float64)
    similarities = np.einsum("qad,nbd->qnab", rounded, candidates)
    return similarities.max(axis=-1).sum(axis=-1)


def assert_close(found, queries, parts, r_c):
    expected = defined(queries, parts, r_c)
    norms = np.linalg.norm(queries, axis=-1).sum(axis=-1, keepdims=True)
    largest = max(np.linalg.norm(decode(p), axis=-1).max() for part in parts for p in part.planes)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= 1e-6 * norms * largest + 1e-30).all()


def assert_best(found, scores, k):
    """`found` is the best k of the kernel's own scores; equal ones in order."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert found.positions.dtype == np.int64
    assert found.positions.tolist() == order.tolist()
    assert found.scores.tolist() == np.take_along_axis(scores, order, axis=1).tolist()


def test_a_search_worked_by_hand():
    candidates = np.array([[[1, 0], [0, 1]], [[0.5, 0], [0, 0.5]], [[-1, 0], [0, -1]]], np.float32)
    queries = np.array([[[1, 0], [0, 2]]], np.float32)
    parts = [Part(stored(candidates, [0, 1, 2], "float32"), None)]
    assert gpu.scores(queries, parts, r_c=1).tolist() == [[1, 0.5, -1]]
    assert gpu.scores(queries, parts, r_c=2).tolist() == [[3, 1.5, 0]]
    best = gpu.top_k(queries, parts, r_c=2, k=2)
    assert best.positions.tolist() == [[0, 1]]
    assert best.scores.tolist() == [[3, 1.5]]


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(st.sampled_from([1, 3, 16, 33, 100, 128, 130, 257]))
    edges = sorted({0, *draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))})
    types = [draw(st.sampled_from(STORAGE_TYPES))]
    if types[0] in ("int8", "int4", "binary"):  # planes that take the same queries
        types.append(draw(st.sampled_from(["int8", "int4", "binary"])))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.sampled_from([1, 2, 9, 40, 150]))
        vectors = rng.standard_normal((rows, edges[-1], dim)).astype(np.float32)
        vectors *= rng.choice([0, 1e-3, 1, 1, 1, 30], (rows, edges[-1], 1)).astype(np.float32)
        vectors[rng.integers(0, rows, rows // 3)] = vectors[0]  # ties
        chosen = rng.permutation(rows)[: draw(st.integers(0, rows))]  # in any order
        parts.append(Part(stored(vectors, edges, *types), draw(st.sampled_from([None, chosen]))))
    Q, r_q = draw(st.sampled_from([(1, 1), (1, 5), (1, 16), (1, 33), (5, 1), (2, 3), (7, 4)]))
    queries = rng.standard_normal((Q, r_q, dim)).astype(np.float32)
    return queries, parts, draw(st.integers(1, edges[-1])), draw(st.sampled_from([1, 3, 10, 500]))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_streamed_and_resident_parts_both_equal_the_definition(case):
    queries, parts, r_c, k = case
    if not any(map(device.num_selected, parts)):
        return
    scores = gpu.scores(queries, parts, r_c=r_c)
    assert_close(scores, queries, parts, r_c)
    assert_best(gpu.top_k(queries, gpu.to_device(parts), r_c=r_c, k=k), scores, k)


@pytest.mark.parametrize("dtype", STORAGE_TYPES)
def test_vectors_may_be_long(dtype):
    queries, parts = normal(1, 2, 5120), [Part(stored(normal(3, 1, 5120), [0, 1], dtype), None)]
    assert_close(gpu.scores(queries, parts, r_c=1), queries, parts, 1)


@pytest.mark.parametrize("dtype", ["float16", "int4"])
def test_queries_may_have_more_vectors_than_a_tile(dtype):
    queries, parts = normal(2, 70, 16), [Part(stored(normal(5, 2, 16), [0, 2], dtype), None)]
    assert_close(gpu.scores(queries, parts, r_c=2), queries, parts, 2)


def test_numbers_of_very_different_size_meet_halves_exactly():
    queries = normal(3, 2, 32) * np.float32(10) ** np.linspace(-12, 6, 32, dtype=np.float32)
    parts = [Part(stored(normal(9, 2, 32, seed=1), [0, 2], "float16"), None)]
    assert_close(gpu.scores(queries, parts, r_c=2), queries, parts, 2)


@pytest.mark.parametrize("dtype", STORAGE_TYPES)
def test_items_that_are_stored_alike_tie_wherever_they_lie(dtype, monkeypatch):
    whole = stored(np.repeat(normal(1, 2, 72), 201, axis=0), [0, 2], dtype)
    parts = [Part(whole, None), Part(whole, np.arange(0, 201, 7)), Part(whole, np.arange(2, 100))]
    monkeypatch.setattr(device, "STREAM_BYTES", whole[0].codes[:83].nbytes)
    for r_c in (1, 2):
        best = gpu.top_k(normal(1, 3, 72, seed=1), parts, r_c=r_c, k=300)
        assert len(set(best.scores[0].tolist())) == 1
        assert best.positions[0].tolist() == list(range(300))


@pytest.mark.parametrize("resident", [False, True])
def test_the_size_of_the_blocks_changes_nothing(resident, monkeypatch):
    vectors = np.random.default_rng(0).integers(-1, 2, (40, 3, 8)).astype(np.float32)  # many ties
    planes = stored(vectors, [0, 1, 3], "int8", "int4")
    parts = [Part(planes, None), Part(planes, np.array([7, 7, 3])), Part(planes, None)]
    queries = normal(2, 3, 8)
    at_once = gpu.top_k(queries, parts, r_c=3, k=25)
    monkeypatch.setattr(gpu, "MAX_BLOCK_ELEMENTS", 11 * 2 * 3)
    monkeypatch.setattr(device, "STREAM_BYTES", 9 * (8 + 2 * 4))
    found = gpu.top_k(queries, gpu.to_device(parts) if resident else parts, r_c=3, k=25)
    assert found.positions.tolist() == at_once.positions.tolist()
    assert found.scores.tolist() == at_once.scores.tolist()


def test_other_rows_of_a_part_in_device_memory_can_be_scored(monkeypatch):
    whole = Part(stored(normal(20, 5, 24), [0, 2, 5], "int8", "int4"), None)
    (resident,) = gpu.to_device([whole])
    rows = np.array([11, 3, 3, 19])
    codes = resident.planes[0].codes
    chosen = resident._replace(rows=codes.new_tensor(rows.tolist(), dtype=int))
    queries = normal(2, 3, 24, seed=1)
    monkeypatch.setattr(gpu, "MAX_BLOCK_ELEMENTS", 3 * 2 * 3)  # blocks of 3 items
    for r_c in (1, 4):
        found = gpu.scores(queries, [chosen, whole], r_c=r_c)
        assert_close(found, queries, [whole._replace(rows=rows), whole], r_c)


def test_halves_and_floats_may_share_an_item():
    parts = [Part(stored(normal(20, 5, 24), [0, 2, 5], "float32", "float16"), None)]
    queries = normal(2, 3, 24, seed=1)
    assert_close(gpu.scores(queries, parts, r_c=4), queries, parts, 4)


def test_mapped_files_are_read(tmp_path):
    plane = encode(normal(9, 2, 16), "bfloat16")
    np.save(tmp_path / "codes.npy", plane.codes)
    mapped = plane._replace(codes=np.load(tmp_path / "codes.npy", mmap_mode="r"))
    queries = normal(1, 2, 16, seed=1)
    for rows in (None, np.array([8, 2])):
        found = gpu.scores(queries, [Part((mapped,), rows)], r_c=2)
        assert found.tolist() == gpu.scores(queries, [Part((plane,), rows)], r_c=2).tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_zeros_and_denormals_score_as_the_numbers_they_are(dtype):
    vectors = np.zeros((3, 2, 20), np.float32)
    vectors[1] = 1e-40  # a denormal of float32
    vectors[2] = -1
    parts = [Part(stored(vectors, [0, 2], dtype), None)]
    scores = gpu.scores(np.ones((1, 3, 20), np.float32), parts, r_c=2)
    np.testing.assert_allclose(scores, [[0, 0, -60]], atol=1e-30)
    tiny = np.full((1, 3, 20), 1e-42, np.float32)
    np.testing.assert_allclose(gpu.scores(tiny, parts, r_c=2), [[0, 0, 0]], atol=1e-30)


@pytest.mark.parametrize("resident", [False, True])
def test_no_item_and_no_query_give_nothing(resident):
    planes = stored(np.ones((4, 1, 8), np.float32), [0, 1], "int8")
    queries = np.ones((2, 1, 8), np.float32)
    for parts in ([], [Part(planes, np.array([], np.int64))]):
        given = gpu.to_device(parts) if resident else parts
        assert gpu.top_k(queries, given, r_c=1, k=5).positions.shape == (2, 0)
        assert gpu.scores(queries, given, r_c=1).shape == (2, 0)
    given = [Part(planes, None)]
    given = gpu.to_device(given) if resident else given
    assert gpu.top_k(queries[:0], given, r_c=1, k=5).positions.shape == (0, 4)
    assert gpu.scores(queries[:0], given, r_c=1).shape == (0, 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(dtype, bad):
    parts = [Part(stored(np.ones((5, 2, 16), np.float32), [0, 2], dtype), None)]
    queries = np.ones((1, 2, 16), np.float32)
    queries[0, 1, 3] = bad
    with np.errstate(all="ignore"), pytest.raises(IndexMismatchError, match="overflow"):
        gpu.top_k(queries, parts, r_c=2, k=3)


def test_one_number_that_is_not_finite_is_not_lost_in_a_maximum():
    vectors = np.ones((5, 2, 16), np.float32)
    vectors[3, 1, 5] = np.nan
    parts = [Part(stored(vectors, [0, 2], "float32"), None)]
    with pytest.raises(IndexMismatchError, match="overflow"):
        gpu.scores(np.ones((1, 2, 16), np.float32), parts, r_c=2)
