"""Training from the command line: a recipe, changes of it, and what is made of the adapter."""

import json

import pytest

from metaembed.model import MetaEmbed
from tests.cli.examples import one_line_error
from tests.training.runs import recipe_for

pytestmark = pytest.mark.filterwarnings("ignore")  # the trainer's own


@pytest.fixture
def recipe(bert_folder, tmp_path):
    recipe_for(tmp_path, bert_folder)
    return tmp_path / "recipe-6.toml"


def test_a_recipe_is_trained_with_changes_and_its_adapter_merged(run, recipe, tmp_path):
    out = tmp_path / "run"
    code, printed, _ = run("train", recipe, "-o", out, "--set", "optim.steps=2", "--json")
    assert code == 0
    record = json.loads(printed.splitlines()[-1])
    assert record["model"] == str(out / "model")
    assert record["recipe"]["optim"]["steps"] == 2
    whole = tmp_path / "whole"
    code, printed, _ = run("merge-adapter", out / "model", "--out", whole)
    assert code == 0
    assert str(whole) in printed
    assert (whole / "model.safetensors").exists()
    assert not (whole / "adapter_config.json").exists()
    texts = ["the fox", "a page about whales"]
    adapter, merged = MetaEmbed(out / "model").eval(), MetaEmbed(whole).eval()
    found = merged.encode_document(texts, convert_to_tensor=True)
    expected = adapter.encode_document(texts, convert_to_tensor=True)
    assert (found - expected).abs().max() < 1e-5
    again = run("merge-adapter", out / "model", "--out", whole)
    assert "new folder" in one_line_error(again)


def test_a_wrong_change_or_recipe_is_one_line(run, recipe, tmp_path):
    changed = run("train", recipe, "-o", tmp_path / "run", "--set", "optim.steps=none")
    assert "optim.steps" in one_line_error(changed)
    missing = run("train", tmp_path / "no.toml", "-o", tmp_path / "run")
    assert "There is no recipe" in one_line_error(missing)


def test_people_see_the_losses_of_all_groups_and_validation(run, recipe, tmp_path):
    code, out, err = run("train", recipe, "-o", tmp_path / "run", "--set", "optim.steps=3")
    assert code == 0
    assert "Next: metaembed eval" in out
    assert "step 1  loss" in err
    assert "(1x1 " in err
    assert "validation NDCG@5: 1x1 " in err
