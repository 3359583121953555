"""Searches that score less than everything: cascades, their choice, and certified searches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.budget import Budget
from metaembed.errors import BudgetError, IndexMismatchError
from metaembed.index import Index
from metaembed.index.cascade import Cascade, Stage
from metaembed.index.planning import FEWEST_ITEMS, default_cascade
from tests.index.examples import GROUPS, grid, make_index, naive_search, pairs

PLANTED_GROUPS = ["1x1", "2x4", "4x16"]


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def planted(path, items=6_000, dim=24, **options):
    """Random items, and queries that are noisy copies of some of them."""
    rng = np.random.default_rng(0)
    vectors = unit(
        rng.standard_normal((items, 1, dim)) + 0.7 * rng.standard_normal((items, 16, dim))
    )
    index = Index.create(path, dim=dim, groups=PLANTED_GROUPS, **options)
    index.add([str(n) for n in range(items)], vectors, [{"n": n} for n in range(items)])
    noise = 0.4 * rng.standard_normal((80, 4, dim))
    return index, unit(vectors[:80, :4] + noise)


def alone(index, queries, *arguments, **options):
    """Ask one query at a time: sums of several are rounded in another order."""
    return [index.search(query[None], *arguments, **options)[0] for query in queries]


def recall(found, exact):
    kept = [
        len({hit.id for hit in a} & {hit.id for hit in b})
        for a, b in zip(found, exact, strict=True)
    ]
    return sum(kept) / sum(map(len, exact))


def test_a_cascade_worked_by_hand(tmp_path):
    """The first vectors put b before a before c; both vectors put c first."""
    with Index.create(tmp_path / "idx", dim=2, groups=["1x1", "1x2"]) as index:
        vectors = [[[0.5, 0], [0, 0]], [[0.75, 0], [0, 0]], [[0.25, 0], [1, 0]]]
        index.add(["a", "b", "c"], np.array(vectors, np.float32))
        query = np.array([[[1, 0]]], np.float32)
        assert pairs(index.search(query, k=1)) == [[("c", 1.0)]]
        assert pairs(index.search(query, k=1, cascade="1x1:2")) == [[("b", 0.75)]]
        assert pairs(index.search(query, k=1, cascade="1x1:3")) == [[("c", 1.0)]]
        assert pairs(index.search(query, k=3, cascade="1x1:3")) == pairs(index.search(query, k=3))


def test_the_sum_of_a_querys_vectors_is_scored_once(tmp_path):
    with Index.create(tmp_path / "idx", dim=2, groups=["1x1", "2x2"], dtype="float32") as index:
        vectors = [[[1, 1], [0, 0]], [[1.5, 0], [0, 1.5]]]
        index.add(["both", "each"], np.array(vectors, np.float32))
        query = np.array([[[1, 0], [0, 1]]], np.float32)
        assert pairs(index.search(query, k=1)) == [[("each", 3.0)]]
        assert pairs(index.search(query, k=1, cascade="sum2x2:1")) == [[("both", 2.0)]]
        assert pairs(index.search(query, k=1, cascade="sum2x2:2")) == [[("each", 3.0)]]


@pytest.mark.parametrize("sketch", [None, "int8", "binary"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), k=st.integers(1, 9))
def test_a_cascade_that_keeps_everything_is_exact(tmp_path_factory, sketch, seed, k):
    path = tmp_path_factory.mktemp("cascade") / "idx"
    mark = "~" if sketch else ""
    with make_index(path, items=30, seed=seed, sketch=sketch) as index:
        index.delete(["3", "20"])
        index.upsert(["5"], grid(1, 4, 4, seed), [{"n": 5}])
        queries = grid(3, 2, 4, seed + 1)
        for cascade in (f"{mark}1x1:30", f"{mark}sum2x1:30,2x2:29", "1x4:30,1x4:30,2x1:28"):
            for filter in (None, {"n": {"lt": 12}}):  # sums of quarters are exact
                exact = index.search(queries, k=k, filter=filter)
                assert index.search(queries, k=k, filter=filter, cascade=cascade) == exact


def test_hits_of_a_cascade_have_exact_scores_in_order(tmp_path):
    index, queries = planted(tmp_path / "idx", items=400)
    with index:
        found = index.search(queries, k=5, cascade="1x1:40,sum4x4:20")
        for hits, exact in zip(found, alone(index, queries, k=400), strict=True):
            scores = {hit.id: hit.score for hit in exact}
            assert [hit.score for hit in hits] == sorted((scores[h.id] for h in hits), reverse=True)


def test_a_cascade_is_written_and_read_back():
    text = "~sum16x1:2000,16x4:500"
    cascade = Cascade.parse(text)
    assert cascade.stages == (
        Stage(Budget(16, 1), 2000, is_summed=True, is_sketch=True),
        Stage(Budget(16, 4), 500),
    )
    assert str(cascade) == text
    assert Cascade.parse(cascade) == cascade


@pytest.mark.parametrize(
    ("cascade", "message"),
    [
        ("", "written like"),
        ("4x8", "written like"),
        ("4x8:0", "written like"),
        ("sum~4x8:9", "written like"),
        (7, "written like"),
        ("1x1:5,1x4:6", "keeps more than"),
        ("1x8:9", r"1x8 .* provides \(2x4\)"),
        ("~1x1:9", "reads a sketch .* has none"),
        ("1x1:9", "keeps 9 items and 10 hits"),
    ],
)
def test_a_cascade_that_makes_no_sense_is_refused_in_one_line(tmp_path, cascade, message):
    with make_index(tmp_path / "idx") as index:
        with pytest.raises(BudgetError, match=message) as caught:
            index.search(grid(1, 2, 4), cascade=cascade)
        assert "\n" not in str(caught.value)


def test_the_rule_leaves_small_indexes_and_small_budgets_alone(tmp_path):
    widths = [1, 4, 8, 16, 64]
    assert default_cascade(Budget(16, 64), 10, FEWEST_ITEMS - 1, widths) is None
    assert default_cascade(Budget(2, 3), 10, 10**6, widths) is None
    assert str(default_cascade(Budget(4, 8), 4, 10**6, widths)) == "sum4x1:8000"
    index, queries = planted(tmp_path / "idx")
    with index:
        exact = index.search(queries)
        assert recall(index.search(queries, cascade="auto"), exact) >= 0.85
        few = {"n": {"lt": 50}}
        found = index.search(queries, filter=few, cascade="auto")
        assert found == alone(index, queries, filter=few)


def test_a_cascade_that_was_chosen_keeps_the_recall_on_other_queries(tmp_path):
    index, queries = planted(tmp_path / "idx")
    with index:
        choice = index.choose_cascade(queries[:40], recall=0.9)
        assert choice.recall >= 0.9
        assert choice.expected_ms <= choice.exact_ms
        found = index.search(queries[40:], cascade=choice.cascade)
        assert recall(found, index.search(queries[40:])) >= 0.9


def test_no_cascade_is_chosen_for_an_empty_index(tmp_path):
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS) as index:
        assert index.choose_cascade(grid(1, 2, 4)).cascade is None
        with pytest.raises(IndexMismatchError, match="between 0 and 1"):
            index.choose_cascade(grid(1, 2, 4), recall=1)


@pytest.mark.parametrize(
    ("dtype", "sketch"),
    [("float32", "int8"), ("float16", "int4"), ("bfloat16", "int8"), ("int8", "int4")],
)
def test_a_certified_search_is_the_exact_search(tmp_path, dtype, sketch):
    index, queries = planted(tmp_path / "idx", items=1_500, dtype=dtype, sketch=sketch)
    with index:
        index.delete([str(n) for n in range(0, 1_500, 7)])
        index.upsert(["1", "2"], index.embeddings(["8", "8"]))  # ties
        for budget in ("1x1", "2x4", "3x9", "4x16"):
            for k in (1, 10, 2_000):
                certified = index.search_certified(queries[:7], budget, k)
                exact = alone(index, queries[:7], budget, k)
                assert [hits for hits, _ in certified] == exact
                assert all(
                    k <= proof.scored or proof.scored == len(index) for _, proof in certified
                )
                assert all(proof.items == len(index) for _, proof in certified)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-6, 1.0, 300.0]))
def test_a_certified_search_is_exact_on_any_numbers(tmp_path_factory, seed, scale):
    """Also where norms differ wildly and scores tie."""
    rng = np.random.default_rng(seed)
    vectors = scale * rng.standard_normal((60, 4, 5)) * rng.choice([0, 0.01, 1, 30], (60, 4, 1))
    vectors = np.concatenate([vectors, vectors[:20]]).astype(np.float32)
    queries = rng.standard_normal((3, 2, 5)).astype(np.float32)
    path = tmp_path_factory.mktemp("certified") / "idx"
    with Index.create(path, dim=5, groups=GROUPS, dtype="float32", sketch="int8") as index:
        index.add([str(n) for n in range(80)], vectors)
        certified = index.search_certified(queries, k=7)
        assert [hits for hits, _ in certified] == alone(index, queries, k=7)
        exact = naive_search({str(n): v for n, v in enumerate(vectors)}, queries, "2x4", k=7)
        assert [[h.id for h in hits] for hits, _ in certified] == [[i for i, _ in e] for e in exact]


def test_an_int8_sketch_proves_the_best_of_many_by_scoring_few(tmp_path):
    index, queries = planted(tmp_path / "idx", dtype="float32", sketch="int8")
    with index:
        proofs = [proof for _, proof in index.search_certified(queries, k=10)]
        assert np.mean([proof.scored for proof in proofs]) < 0.05 * len(index)


@pytest.mark.parametrize("sketch", [None, "binary"])
def test_a_certified_search_needs_a_sketch_with_errors(tmp_path, sketch):
    index = make_index(tmp_path / "idx", sketch=sketch)
    with index, pytest.raises(IndexMismatchError, match="Copy the index with one"):
        index.search_certified(grid(1, 2, 4))
