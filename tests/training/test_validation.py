"""Validation by budget: which candidates count for a query, and how ties do."""

import numpy as np
import pytest

from metaembed.data.examples import Example, Side
from metaembed.errors import RecipeError
from metaembed.model import MetaEmbed
from metaembed.training.corpus import Pairs
from metaembed.training.validation import BudgetValidation, hold_out


def example(query, positive, *negatives):
    return Example(Side(query), Side(positive), tuple(map(Side, negatives)))


def test_the_last_rows_are_held_out():
    source = Pairs("p", [(f"q{n}", f"p{n}") for n in range(5)])
    kept, held_out = hold_out(source, 2)
    assert len(kept) == 3
    assert kept[2].query.text == "q2"
    with pytest.raises(IndexError):
        kept[3]
    assert [one.query.text for one in held_out] == ["q3", "q4"]
    with pytest.raises(RecipeError, match="5 rows, of which 5 cannot be held out"):
        hold_out(source, 5)


def test_another_answer_to_a_query_does_not_count_against_it():
    validation = BudgetValidation(
        [example("fox", "a"), example("Fox ", "b"), example("dog", "c", "a", "d")]
    )
    scores = np.array([[1.0, 2.0, 0.5, 0.1], [1.0, 0.9, 0.5, 0.1], [9.0, 0.0, 3.0, 4.0]])
    assert validation._ranks(scores).tolist() == [1, 1, 3]


def test_ties_count_against_the_model():
    validation = BudgetValidation([example("fox", "a"), example("dog", "b")])
    assert validation._ranks(np.zeros((2, 2))).tolist() == [2, 2]


def test_every_budget_is_reported(bert_folder):
    model = MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=["1x1", "4x8"]
    )
    rows = [example(f"the {word}", f"a {word}", "none") for word in ("fox", "dog", "page")]
    metrics = BudgetValidation(rows, batch_size=2)(model)
    for name in ("1x1_hit@1", "4x8_hit@1", "1x1_ndcg@5", "4x8_ndcg@5", "candidate_cosine"):
        assert -1 <= metrics[name] <= 1
    assert metrics["1x1_wins"] + metrics["4x8_wins"] == pytest.approx(1)
