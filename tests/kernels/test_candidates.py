"""Every kernel gives what `maxsim` gives for the vectors as they are stored."""

import ctypes
import mmap
import os
import subprocess
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaembed.errors import IndexMismatchError
from metaembed.kernels import Candidates, Part, native, plain
from metaembed.kernels import candidates as candidates_module
from metaembed.kernels.native import NativeParts
from metaembed.scoring import maxsim
from metaembed.storage import STORAGE_TYPES, decode, encode, round_queries

INSTRUCTION_SETS = [*(native.library().instruction_sets if native.library() else ())]
KERNELS = [*INSTRUCTION_SETS, "torch"]


def search(kernel, queries, parts, *, r_c, k, threads=2):
    if kernel == "torch":
        return plain.search(queries, parts, r_c=r_c, k=k)
    ready = NativeParts(parts, r_c=r_c)
    return native.search(queries, ready, k=k, instruction_set=kernel, threads=threads)


def stored(vectors, edges, dtype):
    """Planes [edges[0], edges[1]), … of vectors (rows, edges[-1], dim)."""
    return tuple(encode(vectors[:, a:b], dtype) for a, b in pairwise(edges))


def defined(queries, parts, r_c):
    """Scores (Q, items) by the definition, in float64."""
    rows = []
    for part in parts:
        vectors = np.concatenate([decode(plane) for plane in part.planes], axis=1)
        rows.append(vectors if part.rows is None else vectors[part.rows])
    candidates = np.concatenate(rows)[:, :r_c].astype(np.float64)
    rounded = round_queries(queries, parts[0].planes[0].dtype).astype(np.float64)
    similarities = np.einsum("qad,nbd->qnab", rounded, candidates)
    return similarities.max(axis=-1).sum(axis=-1)


def assert_best(found, scores, k):
    """`found` is the best k of the kernel's own scores; equal ones in order."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert found.positions.tolist() == order.tolist()
    assert found.scores.tolist() == np.take_along_axis(scores, order, axis=1).tolist()


def test_this_package_was_built_with_its_native_kernel():
    assert INSTRUCTION_SETS


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_search_worked_by_hand(kernel):
    candidates = np.array([[[1, 0], [0, 1]], [[0.5, 0], [0, 0.5]], [[-1, 0], [0, -1]]], np.float32)
    queries = np.array([[[1, 0], [0, 2]]], np.float32)
    parts = [Part(stored(candidates, [0, 1, 2], "float32"), None)]
    assert search(kernel, queries, parts, r_c=1, k=0).scores.tolist() == [[1, 0.5, -1]]
    assert search(kernel, queries, parts, r_c=2, k=0).scores.tolist() == [[3, 1.5, 0]]
    best = search(kernel, queries, parts, r_c=2, k=2)
    assert best.positions.tolist() == [[0, 1]]
    assert best.scores.tolist() == [[3, 1.5]]


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(st.sampled_from([1, 2, 3, 15, 16, 17, 31, 33, 64, 100, 128, 130, 257]))
    edges = sorted({0, *draw(st.lists(st.integers(1, 67), min_size=1, max_size=4))})
    dtype = draw(st.sampled_from(STORAGE_TYPES))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.sampled_from([1, 2, 9, 40, 150]))
        vectors = rng.standard_normal((rows, edges[-1], dim)).astype(np.float32)
        vectors *= rng.choice([0, 1e-3, 1, 1, 1, 30], (rows, edges[-1], 1)).astype(np.float32)
        vectors[rng.integers(0, rows, rows // 3)] = vectors[0]  # ties
        kept = draw(st.sampled_from([None, 0.03, 0.5, 0.95]))
        chosen = None if kept is None else np.flatnonzero(rng.random(rows) < kept)
        parts.append(Part(stored(vectors, edges, dtype), chosen))
    Q, r_q = draw(
        st.sampled_from([(1, 1), (1, 2), (1, 3), (1, 7), (1, 16), (1, 33), (5, 1)])
        | st.tuples(st.integers(2, 40), st.integers(1, 17))
    )
    queries = rng.standard_normal((Q, r_q, dim)).astype(np.float32)
    return queries, parts, draw(st.integers(1, edges[-1])), draw(st.sampled_from([1, 3, 10, 500]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_every_kernel_equals_the_definition(case):
    queries, parts, r_c, k = case
    expected = defined(queries, parts, r_c)
    norms = np.linalg.norm(queries, axis=-1).sum(axis=-1, keepdims=True)
    largest = max(np.linalg.norm(decode(p), axis=-1).max() for part in parts for p in part.planes)
    for kernel in KERNELS:
        scores = search(kernel, queries, parts, r_c=r_c, k=0).scores
        assert scores.shape == expected.shape
        assert (np.abs(scores - expected) <= 1e-5 * norms * largest + 1e-30).all(), kernel
        assert_best(search(kernel, queries, parts, r_c=r_c, k=k), scores, k)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", STORAGE_TYPES)
def test_the_definition_is_maxsim_of_rounded_queries(kernel, dtype):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((3, 4, 40)).astype(np.float32)
    vectors = rng.standard_normal((9, 5, 40)).astype(np.float32)
    planes = stored(vectors, [0, 5], dtype)
    rounded = torch.from_numpy(round_queries(queries, dtype))
    expected = maxsim(rounded, torch.from_numpy(decode(planes[0])))
    found = search(kernel, queries, [Part(planes, None)], r_c=5, k=0).scores
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("last", ["int4", "binary"])
def test_quantised_planes_of_several_types_make_one_item(kernel, last):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((30, 9, 48)).astype(np.float32)
    queries = rng.standard_normal((2, 5, 48)).astype(np.float32)
    parts = [Part((encode(vectors[:, :4], "int8"), encode(vectors[:, 4:], last)), None)]
    scores = search(kernel, queries, parts, r_c=7, k=0).scores
    np.testing.assert_allclose(scores, defined(queries, parts, 7), rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", STORAGE_TYPES)
@pytest.mark.parametrize(("r_q", "width"), [(1, 1), (2, 3), (4, 4), (9, 5), (16, 48)])
def test_items_that_are_stored_alike_tie_wherever_they_lie(kernel, dtype, r_q, width):
    rng = np.random.default_rng(2)
    queries = rng.standard_normal((1, r_q, 72)).astype(np.float32)
    one = rng.standard_normal((1, width, 72)).astype(np.float32)
    whole = stored(np.repeat(one, 301, axis=0), [0, width], dtype)
    parts = [Part(whole, None), Part(whole, np.arange(0, 301, 7)), Part(whole, np.arange(2, 300))]
    best = search(kernel, queries, parts, r_c=width, k=400)
    assert len(set(best.scores[0].tolist())) == 1
    assert best.positions[0].tolist() == list(range(400))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_zeros_and_denormals_score_as_the_numbers_they_are(kernel, dtype):
    vectors = np.zeros((3, 2, 20), np.float32)
    vectors[1] = 1e-40  # a denormal of float32
    vectors[2] = -1
    queries = np.ones((1, 3, 20), np.float32)
    scores = search(kernel, queries, [Part(stored(vectors, [0, 2], dtype), None)], r_c=2, k=0)[0]
    np.testing.assert_allclose(scores, [[0, 0, -60]], atol=1e-30)


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_item_and_no_query_give_nothing(kernel):
    planes = stored(np.ones((4, 1, 8), np.float32), [0, 1], "int8")
    nothing = np.array([], np.int64)
    for parts in ([], [Part(planes, nothing)]):
        assert search(kernel, np.ones((2, 1, 8), np.float32), parts, r_c=1, k=5)[0].shape == (2, 0)
    best = search(kernel, np.ones((0, 1, 8), np.float32), [Part(planes, None)], r_c=1, k=5)
    assert best.scores.shape == (0, 4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_scores_that_are_not_finite_are_refused(kernel, bad):
    vectors = np.ones((5, 2, 16), np.float32)
    queries = np.full((1, 2, 16), bad, np.float32)
    with np.errstate(all="ignore"), pytest.raises(IndexMismatchError, match="overflow"):
        search(kernel, queries, [Part(stored(vectors, [0, 2], "float32"), None)], r_c=2, k=3)


@pytest.mark.parametrize("kernel", INSTRUCTION_SETS)
def test_many_queries_are_scored_in_several_goes(kernel, monkeypatch):
    rng = np.random.default_rng(3)
    queries = rng.standard_normal((23, 3, 32)).astype(np.float32)
    parts = [Part(stored(rng.standard_normal((90, 4, 32)), [0, 1, 4], "bfloat16"), None)]
    at_once = search(kernel, queries, parts, r_c=4, k=9)
    monkeypatch.setattr(native, "MAX_PANEL_NUMBERS", 5 * 3 * 32)
    assert search(kernel, queries, parts, r_c=4, k=9).positions.tolist() == (
        at_once.positions.tolist()
    )


@pytest.mark.parametrize("kernel", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", STORAGE_TYPES)
@pytest.mark.parametrize("dim", [5, 21, 36])
def test_nothing_behind_the_last_vector_is_read(kernel, dtype, dim):
    """The planes end where the readable memory ends."""
    rng = np.random.default_rng(4)
    plane = encode(rng.standard_normal((37, 1, dim)).astype(np.float32), dtype)
    codes = plane.codes.tobytes()
    size = -(-len(codes) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    start = size - len(codes)
    memory[start:size] = codes
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(base + size), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    guarded = np.frombuffer(memory, plane.codes.dtype, plane.codes.size, start)
    guarded = plane._replace(codes=guarded.reshape(plane.codes.shape))
    for Q, r_q in [(1, 1), (1, 2), (1, 4), (1, 16), (3, 9)]:
        queries = rng.standard_normal((Q, r_q, dim)).astype(np.float32)
        found, wanted = (
            search(kernel, queries, [Part((one,), None)], r_c=1, k=0).scores
            for one in (guarded, plane)
        )
        assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("kernel", INSTRUCTION_SETS)
def test_the_number_of_threads_never_changes_the_hits(kernel):
    rng = np.random.default_rng(5)
    vectors = rng.integers(-1, 2, (20_000, 1, 16)).astype(np.float32)  # very many ties
    queries = rng.standard_normal((1, 1, 16)).astype(np.float32)
    parts = [Part(stored(vectors, [0, 1], "float32"), None)]
    alone = search(kernel, queries, parts, r_c=1, k=100, threads=1)
    for threads in (2, 3, 7):
        assert search(kernel, queries, parts, r_c=1, k=100, threads=threads).positions.tolist() == (
            alone.positions.tolist()
        )


def test_several_python_threads_may_search_at_once():
    rng = np.random.default_rng(6)
    parts = [Part(stored(rng.standard_normal((5_000, 8, 32)), [0, 8], "int8"), None)]
    candidates = Candidates(parts, r_c=8)
    queries = rng.standard_normal((8, 1, 4, 32)).astype(np.float32)
    expected = [candidates.top_k(query, 10).positions.tolist() for query in queries]
    found = [[] for _ in queries]

    def ask(number):
        for _ in range(20):
            found[number].append(candidates.top_k(queries[number], 10).positions.tolist())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(queries))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers == [right] * 20 for answers, right in zip(found, expected, strict=True))


@pytest.mark.parametrize("kernel", [*INSTRUCTION_SETS[-1:], "torch"])
def test_some_of_the_candidates_score_as_among_all(kernel, monkeypatch):
    monkeypatch.setattr(candidates_module, "kernel_name", lambda: kernel)
    rng = np.random.default_rng(7)
    planes = stored(rng.standard_normal((40, 3, 16)), [0, 1, 3], "int8")
    whole = Candidates([Part(planes, None), Part(planes, np.arange(1, 40, 2))], r_c=3)
    queries = rng.standard_normal((2, 2, 16)).astype(np.float32)
    scores = whole.scores(queries)
    for positions in (np.array([0, 39, 40, 59]), np.arange(0, 60, 3), np.empty(0, np.int64)):
        few = whole.at(positions)
        assert len(few) == len(positions)
        np.testing.assert_allclose(few.scores(queries), scores[:, positions], rtol=1e-5)
        again = few.at(np.arange(0, len(few), 2))
        np.testing.assert_allclose(again.scores(queries), scores[:, positions[::2]], rtol=1e-5)


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


NAME = "from metaembed.kernels import kernel_name; print(kernel_name(), kernel_name())"


def test_the_environment_chooses_the_kernel():
    for name in KERNELS:
        assert run(NAME, METAEMBED_KERNEL=name) == (f"{name} {name}\n", "")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(NAME, METAEMBED_KERNEL="abacus")
    message = caught.value.stderr.splitlines()[-1]
    assert message.endswith(
        f"METAEMBED_KERNEL is 'abacus'; here it can be one of {', '.join(KERNELS)}."
    )


def test_without_the_native_kernel_one_notice_is_given_and_torch_searches():
    hidden = "from metaembed.kernels import native; native.LIBRARY = native.LIBRARY / 'missing'; "
    out, err = run("import logging; logging.basicConfig(); " + hidden + NAME)
    assert out == "torch torch\n"
    assert err.count("Install a C++ compiler") == 1
