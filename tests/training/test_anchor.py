"""The term that ties a new model's vectors to what its backbone knows."""

import torch

from metaembed.model import MetaEmbed
from metaembed.training.anchor import AnchoredMMRLoss, pooled, principal_directions
from metaembed.windows import windows


def test_pooling_is_the_mean_of_every_window():
    states = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2]).bool()
    counts = [1, 3]
    found = pooled(states, mask, counts, torch.eye(6))
    starts, stops = windows(mask.sum(1), counts)
    for row in range(2):
        for column, (a, b) in enumerate(zip(starts[row], stops[row], strict=True)):
            mean = states[row, a:b].mean(0)
            torch.testing.assert_close(found[row, column], mean / mean.norm())


def test_principal_directions_keep_what_lies_in_few_dimensions():
    basis = torch.linalg.qr(torch.randn(8, 3, generator=torch.Generator().manual_seed(0))).Q
    vectors = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)) @ basis.T
    kept = principal_directions(vectors, 3)
    torch.testing.assert_close(vectors @ kept.T @ kept, vectors, atol=1e-4, rtol=0)


def test_the_anchor_reads_the_item_without_its_meta_tokens(bert_folder):
    from transformers import AutoModel

    model = MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim="full", groups=["1x1", "4x8"]
    )
    backbone = AutoModel.from_pretrained(bert_folder)
    loss = AnchoredMMRLoss(model, backbone, torch.eye(32), anchor=1.0)
    texts = ["whales", "what is on page three of the report"]
    column = model.preprocess(texts, task="document")
    anchors = loss._anchors(column, [1, 7])
    assert anchors.shape == (2, 8, 32)
    for text, anchor in zip(texts, anchors, strict=True):
        plain = backbone(**model.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(
            anchor[0], torch.nn.functional.normalize(plain.mean(0), dim=-1), atol=1e-5, rtol=0
        )
