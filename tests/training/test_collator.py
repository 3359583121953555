"""Batches: columns, marks of absent negatives, and keys."""

import pytest
import torch

from metaembed.data.examples import Example, Picture, Side
from metaembed.errors import ItemError
from metaembed.model import MetaEmbed
from metaembed.training.collator import ExampleCollator


@pytest.fixture
def collate(bert_folder):
    model = MetaEmbed.create(
        bert_folder, num_query_tokens=2, num_candidate_tokens=4, dim=16, groups=["1x1", "2x4"]
    )
    collator = ExampleCollator(preprocess_fn=model.preprocess, num_negatives=2)
    return lambda examples: collator(
        [{"example": one, "origin": f"row {n}"} for n, one in enumerate(examples)]
    )


def test_absent_negatives_are_marked_and_equal_sides_share_a_key(collate):
    batch = collate(
        [
            Example(Side("fox"), Side("a fox"), (Side("a dog"),)),
            Example(Side("dog"), Side("A  Fox"), ()),
        ]
    )
    assert batch["negative_0_present"].tolist() == [True, False]
    assert batch["negative_1_present"].tolist() == [False, False]
    assert batch["positive_key"][0] == batch["positive_key"][1]
    assert batch["query_key"][0] != batch["query_key"][1]
    assert batch["positive_key"].dtype == torch.int64
    assert "query_present" not in batch
    for column in ("query", "positive", "negative_0", "negative_1"):
        assert len(batch[f"{column}_input_ids"]) == 2
    assert batch["query_task"] == "query"
    assert batch["negative_1_task"] == "document"


def test_a_side_that_cannot_be_read_is_named(collate, tmp_path):
    broken = Example(Side("fox"), Side("a"), (Side(picture=Picture(tmp_path / "none.png")),))
    with pytest.raises(ItemError, match="row 0: its negative 0 cannot be read.*data check"):
        collate([broken])
