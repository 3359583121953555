"""MMR against numbers worked by hand and a transcription of the paper's equations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.budget import Budget
from metaembed.loss import MMRLoss, mmr_loss
from tests import oracles

GROUPS = (Budget(1, 1), Budget(2, 4), Budget(4, 8))


def random_vectors(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def test_two_queries_worked_by_hand():
    # One vector each: query 0 scores 1 with its own candidate and 0 with the other.
    vectors = torch.eye(2)[:, None, :]
    expected = -math.log(math.e / (math.e + 1))
    loss = mmr_loss(vectors, vectors, groups=[Budget(1, 1)], temperature=1.0)
    assert loss.item() == pytest.approx(expected)
    hard = vectors.flip(0)[:, None]  # a hard negative that scores 0: one more exp(0) below
    loss = mmr_loss(vectors, vectors, hard, groups=[Budget(1, 1)], temperature=1.0)
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 2)))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 999), st.sampled_from([0.1, 0.5, 1.0]))
def test_agrees_with_the_papers_equations(batch, hard, seed, temperature):
    queries = random_vectors(batch, 4, 6, seed=seed)
    positives = random_vectors(batch, 8, 6, seed=seed + 1)
    negatives = random_vectors(batch, hard, 8, 6, seed=seed + 2) if hard else None
    weights = [1.0, 0.5, 2.0]
    loss = mmr_loss(
        queries, positives, negatives, groups=GROUPS, weights=weights, temperature=temperature
    )
    own = [[]] * batch if negatives is None else negatives
    expected = oracles.mmr_loss(queries, positives, own, GROUPS, weights, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_group_never_sees_beyond_its_prefix():
    queries, candidates = random_vectors(3, 4, 6, seed=0), random_vectors(3, 8, 6, seed=1)
    changed = candidates.clone()
    changed[:, 4:] = 99.0
    groups = GROUPS[:2]
    assert mmr_loss(queries, candidates, groups=groups) == mmr_loss(queries, changed, groups=groups)


def test_hard_negatives_of_one_query_are_no_negatives_of_another():
    queries, positives = random_vectors(2, 4, 6, seed=0), random_vectors(2, 8, 6, seed=1)
    negatives = random_vectors(2, 1, 8, 6, seed=2).requires_grad_()
    logits_of_first = mmr_loss(queries[:1], positives[:1], negatives[:1], groups=GROUPS)
    (gradient,) = torch.autograd.grad(logits_of_first, negatives)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_the_mean_score_divides_by_the_groups_query_vectors():
    queries, positives = random_vectors(3, 4, 6, seed=0), random_vectors(3, 8, 6, seed=1)
    for group in GROUPS:
        mean = mmr_loss(queries, positives, groups=[group], temperature=0.5, score="mean")
        same = mmr_loss(queries, positives, groups=[group], temperature=0.5 * group.query)
        torch.testing.assert_close(mean, same)


def test_gradients_are_right():
    queries = random_vectors(2, 2, 3, seed=0).requires_grad_()
    positives = random_vectors(2, 4, 3, seed=1).requires_grad_()
    negatives = random_vectors(2, 2, 4, 3, seed=2).requires_grad_()

    def loss(q, p, n):
        return mmr_loss(q, p, n, groups=[Budget(1, 1), Budget(2, 4)], temperature=0.5).double()

    # Scores are float32 inside, so the finite differences are coarse.
    torch.autograd.gradcheck(loss, (queries, positives, negatives), eps=1e-2, atol=2e-2, rtol=5e-2)


@pytest.mark.parametrize(
    "wrong",
    [{"weights": [1.0]}, {"temperature": 0.0}, {"temperature": -1.0}, {"groups": ["4x8", "1x1"]}],
)
def test_settings_that_make_no_loss_are_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        MMRLoss(torch.nn.Identity(), **wrong)
