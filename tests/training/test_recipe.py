"""Recipes: what they say, and how they are changed from the command line."""

from pathlib import Path

import pytest

from metaembed.errors import RecipeError
from metaembed.training.recipe import load_recipe
from tests.training.runs import RECIPE

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(RECIPE.format(backbone="x", data="d.jsonl", steps=3))
    return file


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_valid(path):
    load_recipe(path)


def test_a_recipe_with_an_unknown_or_wrong_entry_names_it(tmp_path):
    file = tmp_path / "r.toml"
    wrong = RECIPE.format(backbone="x", data="d.jsonl", steps=-1).replace(
        "temperature", "colour = 1\ntemperature"
    )
    file.write_text(wrong)
    with pytest.raises(RecipeError, match=r"optim.steps.*optim.colour") as caught:
        load_recipe(file)
    assert "\n" not in str(caught.value)


def test_changes_set_entries_as_toml_or_as_plain_words(file):
    recipe = load_recipe(
        file,
        [
            "optim.steps=7",
            "optim.learning_rate=1e-3",
            "model.backbone=some/other",
            'model.groups=["1x1", "3x9"]',
            "report.to=[]",
            "data.sources.0.weight=2.5",
        ],
    )
    assert recipe.optim.steps == 7
    assert recipe.optim.learning_rate == 1e-3
    assert recipe.model.backbone == "some/other"
    assert [str(group) for group in recipe.model.groups] == ["1x1", "3x9"]
    assert recipe.data.sources[0].weight == 2.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optim.steps", "section.entry=value"),
        ("=3", "section.entry=value"),
        ("seed.deeper.still=3", "not there"),
        ("data.sources.7.weight=1", "not there"),
        ("optim.stepps=3", "optim.stepps"),
    ],
)
def test_a_change_of_what_is_not_there_is_refused(file, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(file, [change])


def test_a_recipe_has_a_corpus_or_sources_and_not_both(file):
    with pytest.raises(RecipeError, match="either corpus or sources"):
        load_recipe(file, ["data.corpus=python-docs"])
    with pytest.raises(RecipeError, match="either corpus or sources"):
        load_recipe(file, ["data.sources=[]"])
