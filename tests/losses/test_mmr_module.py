"""The loss as the trainer calls it: marks, mini batches, shared negatives, losses of groups."""

import pytest
import torch
from torch import nn

from metaembed.loss import MMRLoss, mmr_loss
from metaembed.loss.caching import CachedLoss
from metaembed.loss.columns import parted
from tests.losses.batches import features, gradients, largest_difference, tiny_model
from tests.test_loss import GROUPS, random_vectors


class Given(nn.Module):
    """A model whose embeddings stand in the features."""

    def forward(self, features, **named):
        vectors = features["vectors"]
        return {"token_embeddings": vectors, "attention_mask": torch.ones(vectors.shape[:2])}


def given(**marks):
    """Four rows with one hard negative each; `marks` are of the columns by name."""
    names = ("query", "positive", "negative")
    return [
        {"vectors": random_vectors(4, 4 if name == "query" else 8, 6, seed=seed)}
        | {key: torch.tensor(value) for key, value in marks.get(name, {}).items()}
        for seed, name in enumerate(names)
    ]


def of(columns, **settings):
    return MMRLoss(Given(), groups=GROUPS, temperature=0.5, **settings)(columns)


def by_hand(columns, allowed=None, negatives_allowed=None):
    query, positive, negative = (column["vectors"] for column in columns)
    return mmr_loss(
        query,
        positive,
        negative[:, None],
        groups=GROUPS,
        temperature=0.5,
        allowed=allowed,
        negatives_allowed=negatives_allowed,
    )


@pytest.mark.parametrize("side", ["query", "positive"])
def test_rows_with_the_same_query_or_positive_are_not_each_others_negatives(side):
    columns = given(**{side: {"key": [5, 6, 7, 5]}})
    allowed = torch.ones(4, 4, dtype=torch.bool)
    allowed[0, 3] = allowed[3, 0] = False
    torch.testing.assert_close(of(columns), by_hand(columns, allowed))
    assert of(columns) < of(given())


def test_a_hard_negative_that_is_the_rows_positive_does_not_count():
    columns = given(positive={"key": [1, 2, 3, 4]}, negative={"key": [9, 2, 4, 9]})
    counts = torch.tensor([[True], [False], [True], [True]])
    torch.testing.assert_close(of(columns), by_hand(columns, negatives_allowed=counts))


def test_absent_negatives_do_not_count():
    columns = given(negative={"present": [True, False, False, True]})
    counts = torch.tensor([[True], [False], [False], [True]])
    torch.testing.assert_close(of(columns), by_hand(columns, negatives_allowed=counts))
    none = given(negative={"present": [False] * 4})
    torch.testing.assert_close(of(none), of(none[:2]))


def test_shared_negatives_are_candidates_of_every_row_but_of_those_whose_positive_they_are():
    marks = {"key": [9, 2, 4, 9], "present": [True, True, True, False]}
    columns = given(positive={"key": [1, 2, 3, 4]}, negative=marks)
    query, positive, negative = (column["vectors"] for column in columns)
    hard = torch.ones(4, 4, dtype=torch.bool)
    hard[:, 3] = False  # absent
    hard[1, 1] = hard[3, 2] = False  # the positives of rows 1 and 3
    expected = mmr_loss(
        query,
        torch.cat([positive, negative]),
        groups=GROUPS,
        temperature=0.5,
        allowed=torch.cat([torch.ones(4, 4, dtype=torch.bool), hard], dim=1),
    )
    torch.testing.assert_close(of(columns, gather="all"), expected)


def test_the_loss_of_every_group_can_be_read_afterwards():
    loss = MMRLoss(Given(), groups=GROUPS, temperature=0.5, weights=[1.0, 2.0, 3.0])
    assert loss.last_losses == {}
    total = loss(given())
    assert not any(part.requires_grad for part in loss.last_losses.values())
    parts = {name: float(part) for name, part in loss.last_losses.items()}
    assert list(parts) == ["1x1", "2x4", "4x8"]
    assert total.item() == pytest.approx(parts["1x1"] + 2 * parts["2x4"] + 3 * parts["4x8"])


def test_features_are_left_as_they_were():
    columns = given(query={"key": [1, 2, 3, 4]}, negative={"present": [True] * 4})
    before = [set(column) for column in columns]
    of(columns)
    assert [set(column) for column in columns] == before


@pytest.mark.parametrize(("mini_batch_size", "gather"), [(1, "none"), (3, "all"), (99, "none")])
def test_mini_batches_give_the_gradients_of_the_whole_batch(bert_folder, mini_batch_size, gather):
    found = {}
    for size in (mini_batch_size, None):
        model = tiny_model(bert_folder).double()
        loss = MMRLoss(model, temperature=0.5, gather=gather, mini_batch_size=size)
        value = loss(features(model))
        (value / 2).backward()  # as with gradient accumulation
        found[size] = (value.detach(), gradients(model), loss.last_losses)
    cached, plain = found[mini_batch_size], found[None]
    torch.testing.assert_close(cached[0], plain[0])
    torch.testing.assert_close(cached[2], plain[2])
    assert largest_difference(cached[1], plain[1]) < 1e-12


def test_mini_batches_in_float32_differ_by_its_rounding_alone(bert_folder):
    found = []
    for size in (3, None):
        model = tiny_model(bert_folder)
        MMRLoss(model, temperature=0.5, mini_batch_size=size)(features(model)).backward()
        found.append(gradients(model))
    assert largest_difference(*found) < 2e-6


def test_dropout_is_the_same_both_times_a_mini_batch_is_embedded(bert_folder):
    found = []
    for is_cached in (True, False):
        model = tiny_model(bert_folder, dropout=0.3).double()
        loss = MMRLoss(model, temperature=0.5, mini_batch_size=3)
        columns, _ = parted(features(model))
        torch.manual_seed(7)
        if is_cached:
            loss(columns).backward()
        else:
            loss.of_embeddings([embedded_once(model, column) for column in columns]).backward()
        found.append(gradients(model))
    assert largest_difference(*found) < 1e-12


def embedded_once(model, column):
    """Mini batch by mini batch, with gradients at once."""
    cached = CachedLoss(model, sum, mini_batch_size=3)
    parts = cached.embed_minibatch_iter(column, with_grad=True, copy_random_state=False)
    return torch.cat([vectors for vectors, _ in parts])


def test_without_gradients_mini_batches_give_the_loss(bert_folder):
    model = tiny_model(bert_folder)
    with torch.no_grad():
        plain, cached = (
            MMRLoss(model, temperature=0.5, mini_batch_size=size)(features(model))
            for size in (None, 3)
        )
    torch.testing.assert_close(cached, plain)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": [1.0]},
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"groups": ["4x8", "1x1"]},
        {"mini_batch_size": 0},
        {"gather": "some"},
        {"false_negative_margin": -0.5},
        {"false_negative_margin": 0.0},
    ],
)
def test_settings_that_make_no_loss_are_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        MMRLoss(Given(), **wrong)
