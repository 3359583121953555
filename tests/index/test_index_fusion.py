"""Reciprocal rank fusion: by hand, and what must hold for any rankings."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.errors import IndexMismatchError
from metaembed.index.fusion import reciprocal_rank_fusion

RANKINGS = st.lists(st.lists(st.integers(0, 12), unique=True), min_size=1, max_size=4)


def ids(fused):
    return [one for one, _ in fused]


def test_two_rankings_fuse_as_by_hand():
    # With k = 60, a: 1/61 + 1/63, b: 1/62 + 1/61, c: 1/63, d: 1/62.
    assert reciprocal_rank_fusion(["abc", "bda"]) == [
        ("b", pytest.approx(0.0325224748810153)),
        ("a", pytest.approx(0.0322664585)),
        ("d", pytest.approx(0.0161290323)),
        ("c", pytest.approx(0.0158730159)),
    ]


def test_a_small_k_prefers_one_first_place_to_two_middling_ones():
    rankings = ["axyb", "bcdx"]  # a is first once; x is second and fourth
    assert ids(reciprocal_rank_fusion(rankings, k=60)).index("a") > 1
    # 1/1 for a; 1/2 + 1/4 for x; 1/4 + 1/1 for b.
    assert ids(reciprocal_rank_fusion(rankings, k=0))[:3] == ["b", "a", "x"]


def test_a_weight_multiplies_the_share_of_its_ranking():
    assert reciprocal_rank_fusion([["a", "b"], ["b"]], k=1, weights=[2, 6]) == [
        ("b", pytest.approx(2 / 3 + 6 / 2)),
        ("a", pytest.approx(2 / 2)),
    ]


def test_equal_scores_keep_the_order_of_the_first_ranking():
    assert ids(reciprocal_rank_fusion(["ab", "ba"])) == ["a", "b"]
    assert ids(reciprocal_rank_fusion(["ba", "ab"])) == ["b", "a"]
    assert ids(reciprocal_rank_fusion(["a", "b", "c"])) == ["a", "b", "c"]


def test_an_id_that_is_there_twice_counts_where_it_is_first():
    assert reciprocal_rank_fusion(["aab"]) == reciprocal_rank_fusion(["ab"])


def test_nothing_fuses_to_nothing():
    assert reciprocal_rank_fusion([]) == []
    assert reciprocal_rank_fusion([[], []]) == []


@pytest.mark.parametrize("k", [-1, math.nan, math.inf])
def test_a_constant_that_no_rank_can_take_is_refused(k):
    with pytest.raises(IndexMismatchError, match="k is") as raised:
        reciprocal_rank_fusion(["ab"], k=k)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("weights", [[1], [1, 1, 1], [1, -1], [1, math.nan], [math.inf, 1]])
def test_weights_that_do_not_fit_the_rankings_are_refused(weights):
    with pytest.raises(IndexMismatchError, match="2 rankings") as raised:
        reciprocal_rank_fusion(["ab", "bc"], weights=weights)
    assert "\n" not in str(raised.value)


@given(st.lists(st.integers(), unique=True), st.floats(0, 100), st.floats(0.1, 10))
def test_one_ranking_keeps_its_order(ranking, k, weight):
    assert ids(reciprocal_rank_fusion([ranking], k=k, weights=[weight])) == ranking


@given(RANKINGS)
def test_a_ranking_beside_itself_or_beside_an_empty_one_keeps_its_order(rankings):
    first = rankings[0]
    assert ids(reciprocal_rank_fusion([first, first])) == first
    assert reciprocal_rank_fusion([first, []]) == reciprocal_rank_fusion([first])


@given(RANKINGS, st.randoms(use_true_random=False), st.floats(0, 100))
def test_the_order_of_the_rankings_changes_no_score(rankings, chooser: random.Random, k):
    weighted = [(ranking, chooser.uniform(0.1, 3)) for ranking in rankings]
    shuffled = chooser.sample(weighted, len(weighted))
    scores, others = (
        dict(reciprocal_rank_fusion([r for r, _ in some], k=k, weights=[w for _, w in some]))
        for some in (weighted, shuffled)
    )
    assert scores == others


@given(RANKINGS, st.data())
def test_moving_up_in_one_ranking_moves_nothing_down(rankings, data):
    ranking = data.draw(st.sampled_from(rankings))
    if len(ranking) < 2:
        return
    place = data.draw(st.integers(1, len(ranking) - 1))
    one = ranking[place]
    before = reciprocal_rank_fusion(rankings)
    number = next(n for n, some in enumerate(rankings) if some is ranking)
    raised = [*ranking[: place - 1], one, ranking[place - 1], *ranking[place + 1 :]]
    after = reciprocal_rank_fusion([*rankings[:number], raised, *rankings[number + 1 :]])
    assert dict(after)[one] > dict(before)[one]
    assert ids(after).index(one) <= ids(before).index(one)


@given(RANKINGS)
def test_scores_equal_the_definition_and_come_best_first(rankings):
    fused = reciprocal_rank_fusion(rankings, k=10)
    assert {one for one, _ in fused} == {one for ranking in rankings for one in ranking}
    assert [score for _, score in fused] == sorted((s for _, s in fused), reverse=True)
    for one, score in fused:
        shares = [1 / (11 + ranking.index(one)) for ranking in rankings if one in ranking]
        assert score == pytest.approx(sum(shares))


@given(RANKINGS, RANKINGS)
def test_a_weight_of_0_leaves_a_ranking_out(rankings, others):
    weights = [1.0] * len(rankings) + [0.0] * len(others)
    fused = reciprocal_rank_fusion([*rankings, *others], weights=weights)
    assert fused == reciprocal_rank_fusion(rankings)
