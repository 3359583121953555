"""What a caller sees of an index, by hand and against three loops."""

import doctest
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metaembed.index
from metaembed.budget import Budget
from metaembed.errors import BudgetError, FilterError, IndexFormatError, IndexMismatchError
from metaembed.index import Hit, Index
from metaembed.kernels import candidates, plain
from tests.index.examples import GROUPS, grid, make_index, naive_search, pairs


@pytest.fixture
def index(tmp_path):
    with make_index(tmp_path / "idx") as index:
        yield index


def test_a_search_worked_by_hand(tmp_path):
    with Index.create(tmp_path / "idx", dim=2, groups=["1x1", "2x2"]) as index:
        index.add(
            ["east", "north", "both"],
            np.array([[[1, 0], [1, 0]], [[0, 1], [0, 0.5]], [[0.5, 0], [0, 0.5]]], np.float32),
            [{"page": 1}, {"page": 2}, {"page": 3}],
        )
        query = np.array([[[1, 0], [0, 1]]], np.float32)
        # 1x1: only [1, 0] against the first vectors; north and both tie in no place.
        assert index.search(query, "1x1") == [
            [
                Hit("east", 1.0, {"page": 1}),
                Hit("both", 0.5, {"page": 3}),
                Hit("north", 0.0, {"page": 2}),
            ]
        ]
        # 2x2: east 1 + 0, north 0 + 1, both 0.5 + 0.5: equal, so in insertion order.
        assert pairs(index.search(query, k=2)) == [[("east", 1.0), ("north", 1.0)]]
        assert pairs(index.search(query, filter={"page": {"gte": 3}})) == [[("both", 1.0)]]


def test_the_examples_in_the_docstrings_are_true():
    for module in (metaembed.index, metaembed.index.filters):
        assert doctest.testmod(module).failed == 0


def test_it_says_what_it_holds(tmp_path):
    path = tmp_path / "idx"
    make_index(path, model="tiny", fingerprint="ab12", dtype="float32").close()
    with Index.open(path, fingerprint="ab12") as index:
        assert (index.path, index.dim, index.dtype) == (path, 4, "float32")
        assert (index.model, index.fingerprint) == ("tiny", "ab12")
        assert index.groups == (Budget(1, 1), Budget(2, 4))
        assert (index.limit, index.num_vectors, len(index)) == (Budget(2, 4), 4, 6)
        assert "0" in index
        assert "9" not in index
        assert 0 not in index
        assert index.ids() == ["0", "1", "2", "3", "4", "5"]
        assert "limit='2x4'" in repr(index)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_search_equals_three_loops(data):
    shape = st.integers(1, 5)
    dim, num_queries, k = data.draw(shape), data.draw(st.integers(0, 3)), data.draw(shape)
    limit = Budget(data.draw(shape), data.draw(shape))
    budget = Budget(data.draw(st.integers(1, limit.query)), data.draw(st.integers(1, limit[1])))
    parts = data.draw(st.lists(st.integers(0, 4), max_size=3))
    groups = [Budget(1, 1), limit] if limit != (1, 1) else [limit]
    vectors = grid(sum(parts), limit.candidate, dim, seed=data.draw(st.integers(0, 99)))
    queries = grid(num_queries, limit.query + 1, dim, seed=1)
    numbers = data.draw(st.sets(st.integers(0, 12)))
    with (
        tempfile.TemporaryDirectory() as folder,
        Index.create(folder, dim=dim, groups=groups) as index,
    ):
        start = 0
        for size in parts:
            block = range(start, start + size)
            index.add([str(n) for n in block], vectors[start:][:size], [{"n": n} for n in block])
            start += size
        everything = {str(n): vectors[n] for n in range(start)}
        chosen = {str(n): vectors[n] for n in range(start) if n in numbers}
        assert pairs(index.search(queries, budget, k)) == naive_search(
            everything, queries, budget, k
        )
        filtered = index.search(queries, str(budget), k, {"n": {"in": sorted(numbers)}})
        assert pairs(filtered) == naive_search(chosen, queries, budget, k)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.sets(st.sampled_from("abcdef"), max_size=4)),
        st.tuples(st.just("add"), st.sets(st.sampled_from("abcdef"), max_size=2)),
        st.tuples(st.just("delete"), st.sets(st.sampled_from("abcdef"), max_size=3)),
        st.tuples(st.sampled_from(["compact", "reopen"]), st.just(set())),
    ),
    max_size=10,
)


@settings(max_examples=20, deadline=None)
@given(operations=OPERATIONS)
def test_any_history_leaves_what_a_dict_would_hold(operations):
    expected, queries = {}, grid(2, 2, 3, seed=7)
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(folder, dim=3, groups=GROUPS)
        for seed, (operation, ids) in enumerate(operations):
            ids = sorted(ids)
            vectors = grid(len(ids), 4, 3, seed)
            known = [id for id in ids if id in expected]
            if operation == "add" and known:
                with pytest.raises(IndexMismatchError):
                    index.add(ids, vectors)
                continue
            if operation in ("add", "upsert"):
                getattr(index, operation)(ids, vectors, [{"seed": seed}] * len(ids))
            elif operation == "delete":
                assert index.delete(ids) == len(known)
            elif operation == "compact":
                index.compact()
                assert index.stats()[1:3] == (0, min(1, len(expected)))
            else:
                index.close()
                index = Index.open(folder)
            for id in known:
                del expected[id]
            if operation in ("add", "upsert"):
                expected |= dict(zip(ids, vectors, strict=True))
            assert index.ids() == list(expected)
            assert len(index) == len(expected)
            assert pairs(index.search(queries)) == naive_search(expected, queries, "2x4")
        assert np.array_equal(
            index.embeddings(list(expected)), [*expected.values()] or np.empty((0, 4, 3))
        )
        assert index.verify() == []
        index.close()


def test_a_budget_scores_as_an_index_of_only_those_vectors(tmp_path):
    vectors = torch.nn.functional.normalize(torch.randn(9, 8, 6, generator=seeded(0)), dim=-1)
    queries = torch.nn.functional.normalize(torch.randn(2, 3, 6, generator=seeded(1)), dim=-1)
    ids = [str(n) for n in range(9)]
    with Index.create(tmp_path / "all", dim=6, groups=["1x1", "2x4", "3x8"]) as large:
        large.add(ids, vectors)
        for r_c in (1, 3, 4, 5, 8):  # groups, and prefixes that no group has
            with Index.create(tmp_path / str(r_c), dim=6, groups=[f"3x{r_c}"]) as small:
                small.add(ids, vectors[:, :r_c])
                assert large.search(queries, f"3x{r_c}") == small.search(queries)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["native", "torch"])
def kernel(request, monkeypatch):
    """Search with the native kernel, then without it."""
    if request.param == "torch":
        monkeypatch.setattr(candidates, "kernel_name", lambda: "torch")


def test_equal_scores_come_in_insertion_order_across_blocks_and_segments(
    tmp_path, monkeypatch, kernel
):
    ids = [str(n) for n in range(30)]
    vectors = np.tile(grid(1, 4, 4), (30, 1, 1))
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS) as index:
        for start in range(0, 30, 7):
            index.add(ids[start : start + 7], vectors[start : start + 7])
        index.upsert(["3", "11"], vectors[:2])  # newly inserted: at the end
        expected = [id for id in ids if id not in ("3", "11")] + ["3", "11"]
        for elements in (1, 50, 2**24):
            monkeypatch.setattr(plain, "MAX_BLOCK_ELEMENTS", elements)
            for k in (1, 5, 30, 99):
                hits = index.search(vectors[:2, :2], k=k)
                assert [[hit.id for hit in some] for some in hits] == [expected[:k]] * 2
        index.compact()
        assert [hit.id for hit in index.search(vectors[:1, :2], k=30)[0]] == expected


@pytest.mark.parametrize(("r_q", "r_c", "dim"), [(1, 1, 128), (3, 5, 64), (2, 7, 33)])
def test_identical_items_tie_wherever_they_lie_in_a_block(
    tmp_path, monkeypatch, kernel, r_q, r_c, dim
):
    """Their products are rounded, so this needs each to be computed in the same way."""
    monkeypatch.setattr(plain, "MAX_BLOCK_ELEMENTS", 1)
    item = torch.nn.functional.normalize(torch.randn(1, r_c, dim, generator=seeded(0)), dim=-1)
    queries = torch.nn.functional.normalize(torch.randn(3, r_q, dim, generator=seeded(1)), dim=-1)
    ids = [str(n) for n in range(330)]
    with Index.create(tmp_path / "idx", dim=dim, groups=[f"{r_q}x{r_c}"]) as index:
        index.add(ids, item.expand(330, -1, -1))
        for hits in index.search(queries, k=330):
            assert len({hit.score for hit in hits}) == 1
            assert [hit.id for hit in hits] == ids


def test_the_block_size_never_changes_the_hits(tmp_path, monkeypatch, kernel):
    with make_index(tmp_path / "idx", items=40) as index:
        index.delete(["7", "20"])
        queries = grid(3, 2, 4, seed=5)
        whole = index.search(queries, k=7)
        for elements in (1, 64, 333):
            monkeypatch.setattr(plain, "MAX_BLOCK_ELEMENTS", elements)
            assert index.search(queries, k=7) == whole


def test_no_items_and_no_queries_give_no_hits(tmp_path, index):
    with Index.create(tmp_path / "empty", dim=4, groups=GROUPS) as empty:
        assert empty.search(grid(2, 2, 4)) == [[], []]
        assert (len(empty), empty.ids()) == (0, [])
    assert index.search(grid(0, 2, 4)) == []
    assert index.search(grid(1, 2, 4), filter={"n": 99}) == [[]]


def test_a_deleted_item_is_gone_and_its_id_is_free(index):
    assert index.delete(["1", "1", "nobody", "3"]) == 2
    assert index.delete(["1"]) == 0
    assert index.ids() == ["0", "2", "4", "5"]
    index.add(["1"], grid(1, 4, 4), [{"again": True}])
    assert index.ids()[-1] == "1"
    assert index.get(["1", "0"]) == [{"again": True}, {"n": 0}]


def test_embeddings_come_back_as_stored_in_the_order_asked_for(index):
    index.upsert(["2"], grid(1, 4, 4, seed=9))
    stored = grid(6, 4, 4)
    back = index.embeddings(["5", "2", "0", "5"])
    assert back.dtype == np.float32
    assert np.array_equal(back, [stored[5], grid(1, 4, 4, seed=9)[0], stored[0], stored[5]])
    assert index.embeddings([]).shape == (0, 4, 4)


def test_compaction_frees_the_space_of_deleted_items(index):
    for n in range(5):
        index.upsert(["0"], grid(1, 4, 4, seed=n), [{"n": n}])
    before, hits = index.stats(), index.search(grid(2, 2, 4, seed=3))
    assert (before.items, before.deleted, before.segments) == (6, 5, 6)
    index.compact()
    after = index.stats()
    assert after[:3] == (6, 0, 1)
    assert after.bytes_on_disk < before.bytes_on_disk
    assert index.search(grid(2, 2, 4, seed=3)) == hits
    assert len(list((index.path / "segments").iterdir())) == 1
    index.delete(index.ids())
    index.compact()
    assert index.stats()[:3] == (0, 0, 0)


def test_bytes_per_item_follow_the_budget(tmp_path, index):
    assert index.bytes_per_item() == index.stats().bytes_per_item == 4 * 4 * 2
    assert index.bytes_per_item("1x1") == 1 * 4 * 2
    with Index.create(tmp_path / "wide", dim=4, groups=GROUPS, dtype="float32") as wide:
        assert wide.bytes_per_item("2x3") == 3 * 4 * 4


@pytest.mark.parametrize(
    "convert",
    [
        np.float16,
        np.float64,
        lambda a: a.astype(">f4"),
        torch.from_numpy,
        lambda a: torch.from_numpy(a).bfloat16(),
        lambda a: torch.from_numpy(a).half(),
        lambda a: torch.from_numpy(a).double().requires_grad_(),
    ],
)
def test_arrays_and_tensors_of_any_float_type_are_taken(tmp_path, convert):
    vectors, queries = grid(5, 4, 4), grid(2, 2, 4, seed=1)
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS) as index:
        index.add(list("abcde"), convert(vectors))
        expected = naive_search(dict(zip("abcde", vectors, strict=True)), queries, "2x4")
        assert pairs(index.search(convert(queries))) == expected


def test_a_callers_array_is_neither_kept_nor_changed(tmp_path):
    vectors = grid(2, 4, 4)
    vectors.flags.writeable = False
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS, dtype="float32") as index:
        index.add(["a", "b"], vectors)
        assert np.array_equal(index.embeddings(["a", "b"]), vectors)
        assert index.search(vectors[:, :2])[0][0].score > 0


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (grid(2, 4, 3), r"\(2, 4, 3\).*\(items, vectors, 4\)"),
        (grid(2, 3, 4), r"\(2, 3, 4\).*take \(2, 4, 4\)"),
        (grid(3, 4, 4), r"2 ids .* take \(2, 4, 4\)"),
        (grid(2, 4, 4)[0], r"shape \(4, 4\)"),
        (np.full((2, 4, 4), np.nan), "NaN"),
        (np.full((2, 4, 4), np.inf), "infinity"),
        (np.full((2, 4, 4), 70000.0), "too large for float16"),
        (np.ones((2, 4, 4), np.int64), "not int64"),
        (np.ones((2, 4, 4), np.complex64), "not complex64"),
        (torch.ones(2, 4, 4, dtype=torch.int32), "not torch.int32"),
        ([[[1.0] * 4] * 4] * 2, "not list"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(index, vectors, message):
    before = index.stats()
    with pytest.raises(IndexMismatchError, match=message) as caught:
        index.add(["x", "y"], vectors)
    assert "\n" not in str(caught.value)
    assert index.stats() == before


@pytest.mark.parametrize(
    "ids", ["xy", ["x", ""], ["x", 1], ["x", "x"], ["x", "y" * 1025], ["x", "\0"], ["x", "\ud800"]]
)
def test_ids_that_cannot_be_stored_are_refused(index, ids):
    for write in (index.add, index.upsert):
        with pytest.raises(IndexMismatchError):
            write(ids, grid(2, 4, 4))
    assert len(index) == 6


def test_an_id_may_be_any_text(index):
    odd = ["y" * 1024, "../../etc/passwd", "'; DROP TABLE items; --", "ñ😀", " ", "%", "a\nb"]
    index.add(odd, grid(len(odd), 4, 4))
    assert index.ids()[6:] == odd
    assert len(index.embeddings(odd)) == index.delete(odd) == len(odd)


def test_an_id_that_is_there_needs_upsert(index):
    with pytest.raises(IndexMismatchError, match=r"1 of these ids already.*'3'.*upsert"):
        index.add(["new", "3"], grid(2, 4, 4))
    assert "new" not in index


@pytest.mark.parametrize("id", ["nobody", "0\0", "\ud800", "", 7])
def test_an_unknown_id_is_refused_by_name_where_one_is_needed(index, id):
    for read in (index.get, index.embeddings):
        with pytest.raises(IndexMismatchError, match="has no item"):
            read(["0", id])
    assert index.delete([id]) == 0
    assert id not in index
    with pytest.raises(IndexMismatchError, match="list of strings"):
        index.delete("0")


def test_metadata_comes_back_as_json(index):
    metadata = {"a": None, "b": [1, 2.5, {"c": 'ü\n"\\'}], "d": (1, 2), "": 10**30}
    index.add(["x"], grid(1, 4, 4), [metadata])
    assert index.get(["x"]) == [metadata | {"d": [1, 2]}]


def nested(depth):
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": float("nan")},
        {"a": object()},
        {"a": b"bytes"},
        {"a": np.float32(1)},
        {"a": {1: "key"}},
        {1: "key"},
        {"a": "\ud800"},
        {"a\0": 1},
        {"a": 10**5000},
        {"a": nested(64)},
        ["a"],
        None,
    ],
)
def test_metadata_that_json_would_change_is_refused(index, metadata):
    with pytest.raises(IndexMismatchError, match="metadata of 'y'") as caught:
        index.add(["x", "y"], grid(2, 4, 4), [{"a": nested(63)}, metadata])
    assert "\n" not in str(caught.value)


def test_metadata_must_come_one_for_each_id(index):
    for metadata in ([{}], {"a": 1}, [{}] * 3):
        with pytest.raises(IndexMismatchError, match="each of the 2 ids"):
            index.add(["x", "y"], grid(2, 4, 4), metadata)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"budget": "2x5"}, BudgetError, r"Budget 2x5 .* index 'idx' provides \(2x4\)"),
        ({"budget": "3x4"}, BudgetError, "at most 2x4"),
        ({"budget": "many"}, BudgetError, "QxC"),
        ({"vectors": grid(1, 1, 4)}, BudgetError, "needs 2 vectors per query .* have 1"),
        ({"vectors": grid(1, 2, 5)}, IndexMismatchError, "Query vectors"),
        ({"vectors": np.full((1, 2, 4), 1e39)}, IndexMismatchError, "too large for float32"),
        ({"vectors": np.full((1, 2, 4), 3e38)}, IndexMismatchError, "overflow"),
        ({"k": 0}, IndexMismatchError, "k is 0"),
        ({"k": 1.5}, IndexMismatchError, "k is 1.5"),
        ({"filter": {"n": {"near": 3}}}, FilterError, "near"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(index, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        index.search(**({"vectors": grid(1, 2, 4)} | arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"groups": []}, BudgetError),
        ({"groups": ["2x4", "1x1"]}, BudgetError),
        ({"dim": 0}, IndexFormatError),
        ({"dtype": "binary"}, IndexFormatError),
        ({"dtype": "int8", "sketch": "int8"}, IndexFormatError),
        ({"sketch": "float16"}, IndexFormatError),
        ({"model": None}, IndexFormatError),
    ],
)
def test_an_index_that_makes_no_sense_is_not_created(tmp_path, options, error):
    with pytest.raises(error) as caught:
        Index.create(tmp_path / "idx", **({"dim": 4, "groups": GROUPS} | options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "idx").exists()


def test_an_index_is_not_created_over_something_else(tmp_path, index):
    (tmp_path / "file").write_text("mine")
    for path in (index.path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(IndexFormatError, match="not an empty folder"):
            Index.create(path, dim=4, groups=GROUPS)
    (tmp_path / "empty").mkdir()
    Index.create(str(tmp_path / "empty"), dim=4, groups=GROUPS).close()
    assert (tmp_path / "file").read_text() == "mine"


def test_another_models_queries_are_refused(tmp_path):
    make_index(tmp_path / "idx", model="tiny-v1", fingerprint="ab12").close()
    with pytest.raises(IndexMismatchError, match=r"model 'tiny-v1'.*'ab12'.*'cd34'.*rebuild"):
        Index.open(tmp_path / "idx", fingerprint="cd34")


def test_a_closed_index_says_so(index):
    index.close()
    for use in (index.ids, index.compact, lambda: index.search(grid(1, 2, 4))):
        with pytest.raises(IndexFormatError, match="is closed"):
            use()
    index.close()


def test_importing_the_index_imports_neither_torch_nor_a_model_library():
    code = "import sys, metaembed.index; print({'torch', 'transformers', 'typer'} & {*sys.modules})"
    environment = {"PYTHONPATH": str(Path(metaembed.index.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
