"""Every shipped recipe takes its first steps, with tiny weights of its family and a few rows."""

import json
from pathlib import Path

import pytest
from PIL import Image

from metaembed.model import MetaEmbed
from metaembed.training.recipe import load_recipe
from metaembed.training.run import train
from tests.training.runs import WORDS

pytestmark = pytest.mark.filterwarnings("ignore")  # the trainer's own

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
FAMILIES = {"Qwen2.5-VL": "qwen2_5_vl", "paligemma": "paligemma", "Llama-3.2": "mllama"}
"""Part of a backbone's name, and the tiny checkpoint that takes its place."""


def family_of(backbone: str) -> str:
    return next((name for part, name in FAMILIES.items() if part in backbone), "bert")


@pytest.fixture
def rows(tmp_path):
    """A source with pictures on both sides and a hard negative, and one of texts."""
    lines = {"pictures": [], "texts": []}
    for number, word in enumerate(WORDS):
        picture = tmp_path / f"{word}.png"
        Image.new("RGB", (60, 56), (20 * number, 40, 90)).save(picture)
        image = {"image": str(picture)}
        lines["pictures"].append({"query": f"a {word}", "positive": image, "negatives": ["none"]})
        lines["texts"].append({"query": f"what {word}", "positive": f"the {word}"})
    files = []
    for name, some in lines.items():
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in some))
    return files


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_takes_its_first_step(path, rows, checkpoint, tmp_path):
    recipe = load_recipe(path)
    family = family_of(recipe.model.backbone)
    files = [file for file in rows if family != "bert" or file.stem == "texts"]
    sources = ", ".join(f'{{path = "{file}"}}' for file in files)
    changes = [
        f"model.backbone={checkpoint(family)}",
        'model.groups=["1x1", "2x4", "4x8"]',
        "model.max_visual_tokens=64",
        "model.dim=16" if recipe.model.dim != "full" else "model.dim=full",
        "model.attention=eager",
        "model.precision=float32",
        "optim.steps=1",
        "optim.batch_size=4",
        "optim.warmup_steps=0",
        "optim.bf16=false",
        "optim.workers=0",
        "data.interleave=2",
        "data.held_out=2",
        "report.to=[]",
    ]
    if recipe.optim.mini_batch_size is not None:
        changes.append("optim.mini_batch_size=2")
    if recipe.optim.max_tokens is not None:
        changes.append("optim.max_tokens=32")
    if recipe.data.corpus is None:
        changes.append(f"data.sources=[{sources}]")
    out = tmp_path / "run"
    if recipe.data.corpus is not None:
        out.mkdir()
        pairs = [json.loads(line) for line in rows[1].read_text().splitlines()]
        write_corpus(out / "pairs.jsonl", pairs)
    folder = train(load_recipe(path, changes), out, progress=False)
    assert MetaEmbed(folder).limit == (4, 8)


def write_corpus(file, pairs):
    from metaembed.data.pairs import Pair, write_pairs

    found = [Pair(one["query"], one["positive"], "pkg", one["query"], "heading") for one in pairs]
    write_pairs(file, [(pair, "none") for pair in found])
