"""Ranking metrics against hand-worked rankings, and the laws they keep."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.evaluation.metrics import (
    hit_at_k,
    hit_from_ranks,
    mrr_at_k,
    mrr_from_ranks,
    ndcg_at_k,
    ndcg_from_ranks,
    ranks_of_gold,
    recall_at_k,
)

RANKED = {"one": ["a", "b", "c"], "two": ["x", "y", "a"]}
QRELS = {"one": {"b": 1.0}, "two": {"a": 1.0, "z": 1.0}, "unanswered": {"a": 1.0}}
METRICS = [hit_at_k, recall_at_k, mrr_at_k, ndcg_at_k]

rankings = st.permutations("abcdefgh")
judgements = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0.0, 1.0, 3.0]))
cutoffs = st.integers(1, 10)


def test_worked_by_hand():
    assert hit_at_k(RANKED, QRELS, k=2).tolist() == [1.0, 0.0, 0.0]
    assert recall_at_k(RANKED, QRELS, k=3).tolist() == [1.0, 0.5, 0.0]
    assert mrr_at_k(RANKED, QRELS, k=3).tolist() == [1 / 2, pytest.approx(1 / 3), 0.0]
    ideal = 1 + 1 / math.log2(3)
    expected = [1 / math.log2(3), (1 / 2) / ideal, 0.0]
    assert ndcg_at_k(RANKED, QRELS, k=3).tolist() == pytest.approx(expected)


def test_gains_count_linearly():
    qrels = {"q": {"good": 3.0, "fair": 1.0}}
    swapped = ndcg_at_k({"q": ["fair", "good"]}, qrels, k=2)
    assert swapped[0] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_an_id_returned_twice_counts_once():
    assert recall_at_k({"q": ["a", "a"]}, {"q": {"a": 1.0}}, k=2).tolist() == [1.0]
    assert ndcg_at_k({"q": ["a", "a"]}, {"q": {"a": 1.0}}, k=2).tolist() == [1.0]


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_without_relevant_ids_counts_nothing(metric):
    assert metric({"q": ["a"]}, {"q": {"a": 0.0}}, k=1).tolist() == [0.0]
    assert metric({"q": ["a"]}, {"q": {}}, k=1).tolist() == [0.0]


@pytest.mark.parametrize("metric", METRICS)
@given(ranking=rankings, judged=judgements, k=cutoffs)
def test_every_metric_lies_between_nothing_and_all(metric, ranking, judged, k):
    assert 0 <= metric({"q": ranking}, {"q": judged}, k=k)[0] <= 1 + 1e-12


@pytest.mark.parametrize("metric", METRICS)
@given(judged=judgements.filter(lambda judged: any(judged.values())), k=cutoffs)
def test_the_best_order_reaches_the_most_that_k_allows(metric, judged, k):
    best = sorted(judged, key=lambda id_: -judged[id_])
    relevant = sum(gain > 0 for gain in judged.values())
    most = min(k, relevant) / relevant if metric is recall_at_k else 1.0
    assert metric({"q": best}, {"q": judged}, k=k)[0] == pytest.approx(most)


@pytest.mark.parametrize("metric", [hit_at_k, recall_at_k, mrr_at_k])
@given(ranking=rankings, judged=judgements, k=cutoffs)
def test_looking_further_never_loses(metric, ranking, judged, k):
    near = metric({"q": ranking}, {"q": judged}, k=k)
    assert metric({"q": ranking}, {"q": judged}, k=k + 1)[0] >= near[0]


def test_ranks_worked_by_hand():
    scores = np.array([[0.1, 0.9, 0.5], [0.7, 0.7, 0.2], [0.3, 0.2, 0.1]])
    assert ranks_of_gold(scores, np.array([2, 0, 0])).tolist() == [2, 2, 1]


@given(st.integers(1, 20), st.integers(0, 19))
def test_a_constant_scorer_ranks_the_right_candidate_last(num_candidates, gold):
    scores = np.zeros((1, num_candidates), dtype=np.float32)
    assert ranks_of_gold(scores, np.array([gold % num_candidates])).tolist() == [num_candidates]


def test_a_scorer_that_fails_ranks_the_right_candidate_last():
    scores = np.array([[np.nan, 1.0, 2.0], [np.nan, np.nan, np.nan]])
    assert ranks_of_gold(scores, np.array([0, 1])).tolist() == [3, 3]


@given(ranking=rankings, gold=st.sampled_from("abcdefgh"), k=cutoffs)
def test_ranks_and_rankings_agree(ranking, gold, k):
    ids = sorted(ranking)
    scores = np.array([[-float(ranking.index(id_)) for id_ in ids]])
    ranks = ranks_of_gold(scores, np.array([ids.index(gold)]))
    pairs = [(hit_at_k, hit_from_ranks), (mrr_at_k, mrr_from_ranks), (ndcg_at_k, ndcg_from_ranks)]
    for from_ids, from_ranks in pairs:
        expected = from_ids({"q": ranking}, {"q": {gold: 1.0}}, k=k)
        np.testing.assert_allclose(from_ranks(ranks, k=k), expected)
