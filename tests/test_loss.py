"""MMR against numbers worked by hand and a transcription of the paper's equations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.budget import Budget
from metaembed.errors import BudgetError
from metaembed.loss import mmr_loss
from metaembed.loss.prefixes import prefix_scores
from metaembed.scoring import maxsim
from tests import oracles

GROUPS = (Budget(1, 1), Budget(2, 4), Budget(4, 8))


def random_vectors(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


@st.composite
def nested_groups(draw):
    steps = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4))
    groups = [Budget(*draw(st.tuples(st.integers(1, 3), st.integers(1, 3))))]
    for r_q, r_c in steps:
        if r_q or r_c:
            groups.append(Budget(groups[-1].query + r_q, groups[-1].candidate + r_c))
    return groups


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
    queries = random_vectors(2, 4, 3, seed=0).requires_grad_()
    positives = random_vectors(3, 8, 3, seed=1).requires_grad_()
    negatives = random_vectors(2, 2, 8, 3, seed=2).requires_grad_()

    def loss(q, p, n):
        weights = [1.0, 0.5, 2.0]
        return mmr_loss(q, p, n, groups=GROUPS, weights=weights, temperature=0.5, offset=1)

    torch.autograd.gradcheck(loss, (queries, positives, negatives))


@settings(deadline=None, max_examples=40)
@given(nested_groups(), st.integers(0, 4), st.integers(1, 4), st.integers(0, 999), st.booleans())
def test_scores_of_all_groups_are_those_of_late_interaction(groups, batch, others, seed, is_own):
    R_q, R_c = groups[-1]
    queries = random_vectors(batch, R_q, 5, seed=seed).float()
    shape = (batch, others, R_c, 5) if is_own else (others, R_c, 5)
    candidates = random_vectors(*shape, seed=seed + 1).float()
    found = prefix_scores(queries, candidates, groups=groups)
    assert found.shape == (len(groups), batch, others)
    for scores, (r_q, r_c) in zip(found, groups, strict=True):
        for row in range(batch):
            some = candidates[row] if is_own else candidates
            expected = maxsim(queries[row : row + 1, :r_q], some[:, :r_c])[0]
            torch.testing.assert_close(scores[row], expected)


@pytest.mark.parametrize("limit", [1, 300, 10_000])
def test_the_size_of_a_block_changes_neither_the_loss_nor_its_gradients(limit):
    def results(**named):
        vectors = [
            random_vectors(5, 4, 6, seed=0).requires_grad_(),
            random_vectors(7, 8, 6, seed=1).requires_grad_(),
            random_vectors(5, 2, 8, 6, seed=2).requires_grad_(),
        ]
        loss = mmr_loss(*vectors, groups=GROUPS, temperature=0.1, offset=2, **named)
        return [loss, *torch.autograd.grad(loss, vectors)]

    for blocks, whole in zip(results(max_block_elements=limit), results(), strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-12)


def test_no_similarities_are_kept_for_the_backward_pass():
    kept = []
    queries = random_vectors(4, 16, 8, seed=0).requires_grad_()
    positives = random_vectors(4, 64, 8, seed=1).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        mmr_loss(queries, positives)
    assert max(kept) == positives.numel()
    assert sum(kept) < 4 * 4 * 16 * 64


def test_half_precision_is_summed_in_float32_also_under_autocast():
    queries = random_vectors(3, 4, 64, seed=0).bfloat16()
    positives = random_vectors(3, 8, 64, seed=1).bfloat16().requires_grad_()
    expected = mmr_loss(queries.float(), positives.float(), groups=GROUPS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mmr_loss(queries, positives, groups=GROUPS)
    assert loss.dtype == torch.float32
    assert loss == expected
    (gradient,) = torch.autograd.grad(loss, positives)
    assert gradient.dtype == torch.bfloat16


def test_a_vector_that_is_no_number_is_not_lost():
    queries, positives = random_vectors(2, 4, 6, seed=0), random_vectors(2, 8, 6, seed=1)
    for vector in range(8):
        broken = positives.clone()
        broken[1, vector] = torch.nan
        assert mmr_loss(queries, broken, groups=GROUPS).isnan()


def test_a_masked_candidate_is_as_if_it_were_not_there():
    queries, positives = random_vectors(3, 4, 6, seed=0), random_vectors(4, 8, 6, seed=1)
    negatives = random_vectors(3, 2, 8, 6, seed=2)
    allowed = torch.ones(3, 4, dtype=torch.bool)
    allowed[:, 3] = False
    negatives_allowed = torch.tensor([[True, False]] * 3)
    masked = mmr_loss(
        queries,
        positives,
        negatives,
        groups=GROUPS,
        allowed=allowed,
        negatives_allowed=negatives_allowed,
    )
    without = mmr_loss(queries, positives[:3], negatives[:, :1], groups=GROUPS)
    torch.testing.assert_close(masked, without)


def test_a_masked_candidate_gets_no_gradient_and_the_positive_is_never_masked():
    queries = random_vectors(2, 4, 6, seed=0)
    positives = random_vectors(2, 8, 6, seed=1).requires_grad_()
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    loss = mmr_loss(queries, positives, groups=GROUPS, allowed=nothing)
    assert loss.item() == 0.0  # the positive against nothing
    (gradient,) = torch.autograd.grad(loss, positives)
    assert gradient.tolist() == torch.zeros(2, 8, 6).tolist()


def test_rows_of_a_gathered_batch_add_up_to_the_whole():
    queries, positives = random_vectors(6, 4, 6, seed=0), random_vectors(6, 8, 6, seed=1)
    whole = mmr_loss(queries, positives, groups=GROUPS)
    parts = [
        mmr_loss(queries[start : start + 2], positives, groups=GROUPS, offset=start)
        for start in (0, 2, 4)
    ]
    torch.testing.assert_close(sum(parts) / 3, whole)


def test_candidates_that_score_almost_like_the_positive_are_no_negatives():
    # At full budget query 0 scores 1.0 with its positive, 0.96 and 0.9 with the others.
    queries = torch.tensor([[[1.0, 0.0]]])
    candidates = torch.tensor([[[1.0, 0.0]], [[0.96, 0.28]], [[0.9, -0.4]]])
    named = {"groups": [Budget(1, 1)], "temperature": 1.0}
    all_count = mmr_loss(queries, candidates, **named)
    assert all_count.item() == pytest.approx(math.log(1 + math.exp(-0.04) + math.exp(-0.1)))
    one_less = mmr_loss(queries, candidates, **named, false_negative_margin=0.95)
    assert one_less.item() == pytest.approx(math.log(1 + math.exp(-0.1)))
    hard = candidates[None, 1:]  # the same as hard negatives
    same = mmr_loss(queries, candidates[:1], hard, **named, false_negative_margin=0.95)
    assert same.item() == pytest.approx(one_less.item())


def test_a_group_larger_than_the_embeddings_is_refused():
    queries, candidates = random_vectors(2, 4, 6, seed=0), random_vectors(2, 8, 6, seed=1)
    with pytest.raises(BudgetError, match="16x64"):
        mmr_loss(queries, candidates)
