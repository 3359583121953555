"""Runs of a few steps on tiny models: what they leave behind, and what cutting them changes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metaembed.data.pairs import Pair, write_pairs
from metaembed.errors import ItemError, ModelError, RecipeError
from metaembed.model import MetaEmbed
from metaembed.training.recipe import load_recipe
from metaembed.training.run import train
from tests.training.runs import WORDS, recipe_for, weights_of

pytestmark = pytest.mark.filterwarnings("ignore")  # the trainer's own

ROOT = Path(__file__).parents[2]


ROUNDING = 1e-3
"""Of weights after a few steps of Adam, which makes steps of the same size of tiny gradients."""
NO_DROPOUT = "model.config={hidden_dropout_prob = 0.0, attention_probs_dropout_prob = 0.0}"
"""What falls out depends on how rows are put together."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, bert_folder):
    """A run that nobody cut, with dropout."""
    folder = tmp_path_factory.mktemp("whole")
    return train(recipe_for(folder, bert_folder), folder / "run", progress=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, bert_folder):
    """A run without dropout."""
    folder = tmp_path_factory.mktemp("plain")
    return train(recipe_for(folder, bert_folder, NO_DROPOUT), folder / "run", progress=False)


def test_a_run_leaves_an_adapter_with_its_record(whole, bert_folder):
    assert (whole / "adapter_model.safetensors").exists()
    assert not (whole / "model.safetensors").exists()
    record = json.loads((whole / "training.json").read_text())
    assert record["base"] == bert_folder.as_posix()
    assert record["base_fingerprint"] == MetaEmbed(whole).base_fingerprint
    assert record["recipe"]["optim"]["steps"] == 6
    assert record["data"][0]["rows"] == 94
    assert record["data"][0]["held_out"] == 6
    assert record["packages"]["torch"] == torch.__version__
    assert 0 <= record["validation"]["eval_4x8_ndcg@5"] <= 1
    checkpoint = whole.parent / "checkpoints" / "checkpoint-6"
    assert json.loads((checkpoint / "training.json").read_text())["step"] == 6


def test_the_log_has_the_loss_of_every_group_and_validation_at_every_budget(whole):
    state = json.loads((whole.parent / "checkpoints/checkpoint-6/trainer_state.json").read_text())
    steps = [entry for entry in state["log_history"] if "loss" in entry]
    assert len(steps) == 6
    for entry in steps:
        parts = [entry[f"loss_{group}"] for group in ("1x1", "2x4", "4x8")]
        assert sum(parts) == pytest.approx(entry["loss"], abs=1e-3)
        assert entry["peak_memory_gib"] > 0
    assert all(entry["items_per_second"] > 0 for entry in steps[1:])
    validated = [entry for entry in state["log_history"] if "eval_1x1_hit@1" in entry]
    assert [entry["step"] for entry in validated] == [3, 6]
    assert {"eval_2x4_ndcg@5", "eval_candidate_cosine"} <= validated[0].keys()


RUN = """
import os, signal, sys
from pathlib import Path
from metaembed.loss import MMRLoss
from metaembed.training.recipe import load_recipe
from metaembed.training.run import train

recipe, out, fatal = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls, forward = 0, MMRLoss.forward

def counted(self, *arguments, **named):
    global calls
    calls += 1
    if calls == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, *arguments, **named)

MMRLoss.forward = counted
train(load_recipe(Path(recipe), sys.argv[4:]), Path(out), progress=False)
"""


def start(recipe, out, *, fatal=0, changes=(), command=(sys.executable, "-c", RUN)):
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    arguments = [*command, str(recipe), str(out), str(fatal), *changes]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)


def test_a_killed_run_goes_on_to_the_weights_of_one_that_was_never_cut(
    whole, bert_folder, tmp_path
):
    recipe_for(tmp_path, bert_folder)
    recipe, out = tmp_path / "recipe-6.toml", tmp_path / "run"
    killed = start(recipe, out, fatal=5)
    assert killed.returncode == -signal.SIGKILL
    assert (out / "checkpoints/checkpoint-3").is_dir()
    assert not (out / "model").exists()
    finished = start(recipe, out)
    assert finished.returncode == 0, finished.stderr
    expected, found = weights_of(whole), weights_of(out / "model")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=0, rtol=0)


def test_a_run_cut_in_a_later_epoch_goes_on_in_that_epoch(bert_folder, tmp_path):
    few = "data.sources.0.max_rows=16"  # ten to train on: two steps an epoch
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        recipe_for(folder, bert_folder)
    assert start(whole / "recipe-6.toml", whole / "run", changes=[few]).returncode == 0
    assert start(cut / "recipe-6.toml", cut / "run", fatal=5, changes=[few]).returncode != 0
    assert start(cut / "recipe-6.toml", cut / "run", changes=[few]).returncode == 0
    expected, found = weights_of(whole / "run/model"), weights_of(cut / "run/model")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=0, rtol=0)


def test_two_processes_learn_what_one_does_with_their_batches_together(bert_folder, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        recipe_for(folder, bert_folder, steps=4)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    alone = start(one / "recipe-4.toml", one / "run", changes=[NO_DROPOUT, "optim.batch_size=8"])
    assert alone.returncode == 0, alone.stderr
    both = start(
        two / "recipe-4.toml", two / "run", changes=[NO_DROPOUT], command=(*launch, str(script))
    )
    assert both.returncode == 0, both.stderr
    expected, found = weights_of(one / "run/model"), weights_of(two / "run/model")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=ROUNDING, rtol=0)


def test_the_gradient_cache_learns_what_the_whole_batch_does(plain, bert_folder, tmp_path):
    recipe = recipe_for(tmp_path, bert_folder, NO_DROPOUT, "optim.mini_batch_size=2")
    folder = train(recipe, tmp_path / "run", progress=False)
    found = weights_of(folder)
    for name, tensor in weights_of(plain).items():
        torch.testing.assert_close(found[name], tensor, atol=ROUNDING, rtol=0)


def test_without_lora_all_weights_are_trained_and_saved(bert_folder, tmp_path):
    recipe = recipe_for(tmp_path, bert_folder).model_copy(update={"lora": None})
    folder = train(recipe, tmp_path / "run", progress=False)
    assert (folder / "model.safetensors").exists()
    before = MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=["1x1", "4x8"]
    )
    after = MetaEmbed(folder)
    changed = [
        not torch.equal(old, new)
        for (name, old), (_, new) in zip(
            sorted(before[0].model.named_parameters()),
            sorted(after[0].model.named_parameters()),
            strict=True,
        )
        if "pooler" not in name
    ]
    assert all(changed)


def test_gradient_checkpointing_changes_nothing(whole, bert_folder, tmp_path):
    recipe = recipe_for(tmp_path, bert_folder, "model.gradient_checkpointing=true")
    found = weights_of(train(recipe, tmp_path / "run", progress=False))
    for name, tensor in weights_of(whole).items():
        torch.testing.assert_close(found[name], tensor, atol=ROUNDING, rtol=0)


def test_a_folder_with_another_run_is_left_alone(whole, bert_folder, tmp_path):
    other = recipe_for(tmp_path, bert_folder, steps=9)
    with pytest.raises(RecipeError, match="another recipe"):
        train(other, whole.parent)


def test_an_adapter_on_another_base_is_an_error(whole, bert_folder, tmp_path):
    from tests.tiny import make_bert

    adapter = tmp_path / "model"
    adapter.mkdir()
    for file in whole.rglob("*"):
        if file.is_file():
            target = adapter / file.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    other = tmp_path / "other"
    other.mkdir()
    make_bert(other, seed=1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(other)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="trained on another base"):
        MetaEmbed(adapter)


def test_a_broken_picture_is_named_with_its_source(qwen_folder, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    rows = [
        {"query": f"what {word}", "positive": {"image": str(tmp_path / "broken.png")}}
        for word in WORDS
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_for(
        tmp_path,
        qwen_folder,
        "data.held_out=0",
        "data.avoid_duplicates=false",
        'lora.targets=["q_proj"]',
    )
    with pytest.raises(ItemError, match=r"rows.*positive cannot be read.*data check"):
        train(recipe, tmp_path / "run", progress=False)


def test_pictures_and_texts_are_trained_together(qwen_folder, tmp_path):
    from PIL import Image

    rows = []
    for number, word in enumerate(WORDS):
        picture = tmp_path / f"{word}.png"
        Image.new("RGB", (56, 56 + number), (20 * number, 40, 90)).save(picture)
        rows.append({"query": f"a picture of {word}", "positive": {"image": str(picture)}})
        rows.append(
            {
                "query": {"image": str(picture), "text": "what is it?"},
                "positive": f"it is {word}",
                "negatives": [{"image": str(picture), "text": "no"}],
            }
        )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_for(
        tmp_path,
        qwen_folder,
        "data.held_out=4",
        'lora.targets=["q_proj", "v_proj"]',
        "optim.max_tokens=200",
        steps=3,
    )
    folder = train(recipe, tmp_path / "run", progress=False)
    model = MetaEmbed(folder)
    assert model.encode_query("fox", convert_to_tensor=True).shape == (4, 16)


def test_documentation_of_packages_is_a_corpus(bert_folder, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    pairs = [
        (Pair(f"the {a} {b}", f"a {b} about the {a}", "pkg", f"pkg.{a}{b}", "heading"), "none")
        for a in WORDS
        for b in WORDS
    ]
    write_pairs(out / "pairs.jsonl", pairs)
    recipe_for(tmp_path, bert_folder)
    text = (tmp_path / "recipe-6.toml").read_text()
    file = tmp_path / "corpus.toml"
    sources = next(line for line in text.splitlines() if line.startswith("sources"))
    file.write_text(text.replace(sources, 'corpus = "python-docs"'))
    changes = ['model.projection="principal"', "optim.anchor=1.0", "optim.steps=3"]
    folder = train(load_recipe(file, changes), out, progress=False)
    record = json.loads((folder / "training.json").read_text())
    assert record["data"] == [{"corpus": "python-docs", "name": "pkg", "rows": 94, "held_out": 6}]
