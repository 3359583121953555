"""Diagnostics of embeddings made so that the answer is known."""

import json
import math

import pytest
import torch

from metaembed.errors import BudgetError, ItemError
from metaembed.training.diagnostics import diagnose


def axes(*numbers, dim=16):
    """One vector along each of these axes."""
    return torch.eye(dim)[list(numbers)]


def random_batch(rows, r, *, dim=32, seed):
    return torch.randn(rows, r, dim, generator=torch.Generator().manual_seed(seed))


def test_two_items_worked_by_hand():
    # Query 0 finds axis 0 in its candidate's second vector, and nothing in the first one.
    queries = torch.stack([axes(0), axes(1)])
    candidates = torch.stack([axes(5, 0), axes(1, 6)])
    found = diagnose(queries, candidates, ["1x1", "1x2"])
    # At 1x1 query 0 scores 0 with both, and a tie ranks the other one first; query 1 is right.
    assert found.hit_at_1 == {"1x1": 0.5, "1x2": 1.0}
    assert found.ndcg["1x1"] == pytest.approx((1 / math.log2(3) + 1) / 2)
    assert found.ndcg["1x2"] == 1.0
    assert found.gain == {"1x2": pytest.approx(1 - found.ndcg["1x1"])}
    # Best matches of (query, candidate): (0, 0) second, (0, 1) a tie, first; (1, 0) first, (1, 1).
    assert found.wins == (0.75, 0.25)
    assert found.wins_by_group == {"1x1": 0.75, "1x2": 0.25}
    assert found.query_cosine_mean == found.query_cosine_max == 0.0  # one vector makes no pair
    assert found.candidate_cosine_mean == found.candidate_cosine_max == 0.0
    assert found.warnings == ()


def test_cosines_are_those_of_pairs_inside_an_item():
    same = axes(0, 0, 1)  # cosines 1, 0, 0
    other = axes(2, 3, 4)
    found = diagnose(torch.stack([same, other]), torch.stack([other, other]), ["1x1", "3x3"])
    assert found.query_cosine_mean == pytest.approx(1 / 6)
    assert found.query_cosine_max == 1.0
    assert found.candidate_cosine_mean == found.candidate_cosine_max == 0.0


def test_collapsed_vectors_are_reported_for_their_side():
    queries, one = random_batch(8, 4, seed=0), random_batch(8, 1, seed=1)
    collapsed = one + 0.05 * random_batch(8, 8, seed=2)
    found = diagnose(queries, collapsed, ["1x1", "4x8"])
    assert found.candidate_cosine_mean > 0.98
    assert any("vectors of a candidate are nearly the same" in line for line in found.warnings)
    assert not any("vectors of a query are" in line for line in found.warnings)


def test_vectors_that_never_win_are_named():
    queries, candidates = (random_batch(16, r, seed=r).abs() for r in (4, 8))
    found = diagnose(queries, candidates, ["1x1", "2x4", "4x8"])
    assert "never" not in " ".join(found.warnings)
    candidates[:, 5:7] = 0  # scores 0, and every other vector more
    found = diagnose(queries, candidates, ["1x1", "2x4", "4x8"])
    assert "never a best match, at any group: 5-6 (of 0 to 7)." in " ".join(found.warnings)
    assert found.wins[5] == found.wins[6] == 0
    assert sum(found.wins) == pytest.approx(1)


def test_a_group_that_adds_nothing_is_named():
    queries, candidates = (random_batch(12, r, seed=r).abs() for r in (2, 8))
    candidates[2:, 1:3] += 2 * queries[2:]  # what the second group finds, in all rows but two
    candidates[:, 4:] = 0  # what the third one could
    found = diagnose(queries, candidates, ["1x1", "2x4", "2x8"])
    assert found.ndcg["1x1"] < found.ndcg["2x4"] == found.ndcg["2x8"] < 0.999
    assert "Group 2x8 adds nothing to 2x4" in " ".join(found.warnings)
    assert "adds nothing to 1x1" not in " ".join(found.warnings)


def test_a_group_that_ranks_like_chance_is_named():
    queries, candidates = random_batch(12, 4, seed=0), torch.ones(12, 8, 32)
    candidates[:, 1:5] = queries  # only the first vector is useless
    found = diagnose(queries, candidates, ["1x1", "4x8"])
    assert "Group 1x1 ranks a batch of 12 no better than chance" in " ".join(found.warnings)
    assert "Group 4x8" not in " ".join(found.warnings)


def test_good_embeddings_have_no_warnings():
    queries = random_batch(16, 4, seed=0)
    candidates = torch.cat([queries, random_batch(16, 4, seed=1)], dim=1)
    found = diagnose(queries, candidates, ["1x1", "2x4", "4x8"])
    assert found.hit_at_1 == {"1x1": 1.0, "2x4": 1.0, "4x8": 1.0}
    assert found.warnings == ()


def test_blocks_of_queries_change_nothing(monkeypatch):
    from metaembed.training import diagnostics

    batch = random_batch(7, 4, seed=0), random_batch(7, 8, seed=1)
    whole = diagnose(*batch, ["1x1", "4x8"])
    monkeypatch.setattr(diagnostics, "MAX_BLOCK_ELEMENTS", 1)
    assert diagnose(*batch, ["1x1", "4x8"]) == whole


def test_it_can_be_written_as_json():
    found = diagnose(random_batch(9, 4, seed=0), random_batch(9, 8, seed=1), ["1x1", "4x8"])
    read = json.loads(json.dumps(found.to_dict()))
    assert read == found.to_dict()
    assert set(read["gain"]) == {"4x8"}


def test_batches_that_cannot_be_diagnosed_are_refused():
    with pytest.raises(ItemError, match="3 queries and 2 candidates"):
        diagnose(random_batch(3, 4, seed=0), random_batch(2, 8, seed=1), ["1x1"])
    with pytest.raises(ItemError, match="at least one"):
        diagnose(random_batch(0, 4, seed=0), random_batch(0, 8, seed=1), ["1x1"])
    with pytest.raises(BudgetError, match="16x64"):
        diagnose(random_batch(2, 4, seed=0), random_batch(2, 8, seed=1), ["1x1", "16x64"])
