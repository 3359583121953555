"""A small run: its recipe, its data, and what may be compared of two of them."""

import json
import random
from pathlib import Path

from safetensors.torch import load_file

from metaembed.training.recipe import load_recipe

RECIPE = """
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
sources = [{{path = "{data}"}}]
interleave = 2
held_out = 6
[optim]
steps = {steps}
batch_size = 4
learning_rate = 1e-2
temperature = 0.05
max_tokens = 16
bf16 = false
save_steps = 3
[report]
log_steps = 1
"""

WORDS = ["fox", "dog", "query", "whales", "prices", "page", "three", "report", "model", "image"]


def write_rows(file: Path, *, negatives: bool = True) -> Path:
    """100 rows of text; every third one has no hard negative."""
    rows = []
    for number, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS):
        row = {"query": f"the {a} {b}", "positive": f"a {b} about the {a}"}
        if negatives and number % 3:
            row["negatives"] = [f"a {b} without any {a}"]
        rows.append(row)
    random.Random(0).shuffle(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def recipe_for(folder: Path, backbone: Path, *changes: str, steps: int = 6):
    data = folder / "rows.jsonl"
    if not data.exists():
        write_rows(data)
    file = folder / f"recipe-{steps}.toml"
    file.write_text(RECIPE.format(backbone=backbone.as_posix(), data=data.as_posix(), steps=steps))
    return load_recipe(file, changes)


def weights_of(model: Path):
    """Every tensor that a run saved."""
    files = sorted(model.rglob("*.safetensors"))
    return {
        f"{file.relative_to(model)}/{name}": tensor
        for file in files
        for name, tensor in load_file(file).items()
    }
