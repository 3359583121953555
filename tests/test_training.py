"""Recipes, the anchor term, and a run of a few steps on a tiny model."""

import json
from pathlib import Path

import pytest
import torch

from metaembed.data.pairs import Pair, write_pairs
from metaembed.errors import RecipeError
from metaembed.model import MetaEmbed
from metaembed.training.anchor import AnchoredMMRLoss, pooled, principal_directions
from metaembed.training.recipe import load_recipe
from metaembed.windows import windows

RECIPES = Path(__file__).parent.parent / "recipes"

TINY = """
seed = 0
[model]
backbone = "{backbone}"
groups = ["1x1", "2x4", "4x8"]
dim = 16
[lora]
rank = 2
alpha = 2
targets = ["query", "key", "value", "dense"]
[data]
corpus = "python-docs"
per_package = 10
[optim]
steps = {steps}
batch_size = 4
learning_rate = 1e-2
meta_token_learning_rate = 3e-2
warmup_steps = 0
temperature = 0.05
max_tokens = 16
anchor = 1.0
save_steps = 3
"""


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_valid(path):
    load_recipe(path)


def test_a_recipe_with_an_unknown_or_wrong_entry_names_it(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(TINY.format(backbone="x", steps=-1) + "colour = 1\n")
    with pytest.raises(RecipeError, match=r"optim.steps.*optim.colour") as caught:
        load_recipe(file)
    assert "\n" not in str(caught.value)


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


@pytest.fixture
def prepared(bert_folder, tmp_path):
    """A run's folder whose pairs are there already, and a recipe for it."""
    out = tmp_path / "run"
    out.mkdir()
    words = ["fox", "dog", "query", "whales", "prices", "page", "three", "report", "model", "image"]
    pairs = [
        (Pair(f"the {a} {b}", f"a {b} about the {a}", "pkg", f"pkg.{a}{b}", "heading"), "none")
        for a in words
        for b in words
    ]
    write_pairs(out / "pairs.jsonl", pairs)

    def recipe(steps):
        file = tmp_path / f"{steps}.toml"
        file.write_text(TINY.format(backbone=bert_folder.as_posix(), steps=steps))
        return load_recipe(file)

    return recipe, out


@pytest.mark.filterwarnings("ignore")  # the trainer's own
def test_a_run_saves_an_adapter_and_goes_on_after_a_crash_as_if_nothing_had_happened(
    prepared, monkeypatch
):
    from metaembed.training.run import train

    recipe, out = prepared
    whole = out.parent / "whole"
    whole.mkdir()
    (whole / "pairs.jsonl").write_bytes((out / "pairs.jsonl").read_bytes())
    expected = MetaEmbed(train(recipe(6), whole, progress=False))

    steps, forward = 0, AnchoredMMRLoss.forward

    def crash_at_the_fifth_step(self, *arguments, **named):
        nonlocal steps
        steps += 1
        if steps == 5:
            raise RuntimeError("power failure")
        return forward(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(AnchoredMMRLoss, "forward", crash_at_the_fifth_step)
        with pytest.raises(RuntimeError, match="power failure"):
            train(recipe(6), out, progress=False)
    folder = train(recipe(6), out, progress=False)  # from the checkpoint of step 3

    assert json.loads((folder / "training.json").read_text())["pairs"] == 100
    assert (folder / "adapter_model.safetensors").exists()
    assert not (folder / "model.safetensors").exists()
    found = MetaEmbed(folder)
    torch.testing.assert_close(
        found.encode_query("the fox"), expected.encode_query("the fox"), atol=1e-4, rtol=0
    )
    with pytest.raises(RecipeError, match="another recipe"):
        train(recipe(9), out)
