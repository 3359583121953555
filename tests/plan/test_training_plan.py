"""Costs of training: sizes of published backbones, and a tiny run whose tensors are counted."""

import pytest
import torch

from metaembed.loss import MMRLoss
from metaembed.plan.backbone import backbone_size
from metaembed.plan.gpus import gpu_named
from metaembed.plan.training import Tokens, activation_bytes, tokens_of, training_cost
from metaembed.training.run import _add_adapter, _model
from tests.training.runs import recipe_for

PUBLISHED = [
    ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
    ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656 - 152_064 * 3584),
    ("Qwen/Qwen2.5-VL-32B-Instruct", 33_452_718_336 - 152_064 * 5120),
    ("google/paligemma-3b-pt-224", 2_923_466_480),
]
"""Parameters of the checkpoints, without the output layers that an embedding model does not use."""


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED)
def test_backbones_have_the_size_of_their_checkpoints(name, parameters):
    size = backbone_size(name)
    assert size.parameters == parameters
    assert size.adapters > 0
    assert size.vision > 0


def test_weights_gradients_and_optimizer_are_counted_exactly(bert_folder, tmp_path):
    recipe = recipe_for(tmp_path, bert_folder)
    model = _model(recipe)
    _add_adapter(recipe, model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    features = [model.preprocess(["fox"] * 4, task=task) for task in ("query", "document")]
    MMRLoss(model)(features).backward()
    optimizer.step()
    size = backbone_size(str(bert_folder), targets=recipe.lora.targets)
    cost = training_cost(recipe, size, Tokens(20, 28, 0))
    own = sum(parameter.numel() for parameter in trained)
    gradients = sum(parameter.grad.nbytes for parameter in trained)
    state = [value for held in optimizer.state.values() for value in held.values()]
    moments = sum(value.nbytes for value in state if value.ndim)
    assert cost.trained == own
    assert cost.gradients == gradients
    assert cost.optimizer == moments


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_within_a_factor_of_two_of_what_autograd_keeps(
    qwen_folder, tmp_path, checkpointing
):
    changes = [f"model.gradient_checkpointing={str(checkpointing).lower()}", "model.attention=sdpa"]
    recipe = recipe_for(tmp_path, qwen_folder, *changes).model_copy(update={"lora": None})
    model = _model(recipe).train()
    if checkpointing:
        model[0].model.gradient_checkpointing_enable({"use_reentrant": False})
    features = model.preprocess(["the quick brown fox " * 20] * 8, task="document")
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model[0].model(input_ids=features["input_ids"], attention_mask=features["attention_mask"])
    size = backbone_size(str(qwen_folder))
    planned = activation_bytes(recipe, size, features["input_ids"].numel())
    if checkpointing:  # one layer more, while its backward runs
        layer = 6 * size.hidden + 2 * size.key_value + 3 * size.feed_forward
        planned -= 4 * layer * features["input_ids"].numel()
    assert 0.5 < planned / sum(kept.values()) < 2


def test_operations_and_hours_by_hand(bert_folder, tmp_path):
    recipe = recipe_for(tmp_path, bert_folder)
    size = backbone_size(str(bert_folder))._replace(language=1000, vision=10)
    tokens = Tokens(query=10, candidate=20, visual=5)
    cost = training_cost(recipe, size, tokens, gpu=gpu_named("a100-80gb"), utilisation=0.5)
    rows, negatives = 4, 1
    language = rows * (10 + (1 + negatives) * 20) * 1000 * 4  # LoRA: forward and half a backward
    vision = rows * (1 + negatives) * 5 * 4 * 10 * 2
    assert cost.tokens == rows * 50
    assert cost.operations == language + vision
    assert cost.hours == pytest.approx(6 * cost.operations / (0.5 * 312e12) / 3600)
    whole = training_cost(recipe.model_copy(update={"lora": None}), size, tokens)
    assert whole.operations == language / 4 * 6 + vision
    assert whole.trained > cost.trained
    two = training_cost(recipe, size, tokens, num_gpus=2, shards=2)
    assert two.weights == cost.weights // 2
    assert two.operations == 2 * cost.operations


def test_pictures_set_the_length_of_candidates(bert_folder, tmp_path):
    tokens = tokens_of(recipe_for(tmp_path, bert_folder))
    assert tokens == Tokens(query=16 + 4, candidate=1024 + 12, visual=1024)
