"""A tiny model, a batch for it, and the loss's settings, alike in every process."""

import torch

from metaembed.model import MetaEmbed

ROWS = [
    ("the quick fox", "a fox jumps over the dog", "the lazy dog"),
    ("whales and prices", "the report about whales and prices on page three", "a fox"),
    ("what is on page three", "page three of the report", "describe this image"),
    ("a retrieval model", "a model reads a query and a candidate", "the report ( page 9 )"),
    ("find it", "describe this image find it", "0 1 2 3 4"),
    ("numbers", "0 1 2 3 4 5 6 7 8 9", "prices"),
    ("lazy", "the lazy dog", "the quick brown fox"),
    ("the fox again", "a fox jumps over the dog", "over the dog"),
]
POSITIVE_KEYS = [0, 1, 2, 3, 4, 5, 6, 0]  # rows 0 and 7 have the same positive
NEGATIVE_KEYS = [6, 11, 12, 13, 14, 15, 16, 0]  # row 7's negative is its positive by key
PRESENT = [True, True, False, True, True, False, True, True]


def tiny_model(folder, *, dropout=0.0):
    model = MetaEmbed.create(
        folder,
        num_query_tokens=4,
        num_candidate_tokens=8,
        dim=16,
        groups=["1x1", "2x4", "4x8"],
        config_kwargs={"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout},
    )
    model[0].model.pooler.requires_grad_(False)  # not on the way to the vectors
    return model.train()


def features(model, rows=slice(None)):
    """Columns as the trainer's collator makes them, with marks."""
    tasks = ("query", "document", "document")
    columns = [
        model.preprocess(list(texts), task=task)
        for texts, task in zip(zip(*ROWS[rows], strict=True), tasks, strict=True)
    ]
    columns[0]["key"] = 100 + torch.arange(len(ROWS))[rows]
    columns[1]["key"] = torch.tensor(POSITIVE_KEYS)[rows]
    columns[2]["key"] = torch.tensor(NEGATIVE_KEYS)[rows]
    columns[2]["present"] = torch.tensor(PRESENT)[rows]
    return columns


def gradients(module):
    """By the names of the bare model."""
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def largest_difference(found, expected):
    """Over the largest gradient (or weight) of all."""
    assert found.keys() == expected.keys()
    scale = max(float(value.abs().max()) for value in expected.values())
    return max(float((found[name] - expected[name]).abs().max()) for name in expected) / scale
