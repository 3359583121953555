"""What a training run holds in memory and computes, from its recipe.

Notation: T trained numbers, P parameters, L layers, h hidden width, t tokens in memory at once.

- Weights P · 4 or 2 bytes; gradients T · 4; Adam's two moments T · 8. `shards` divides all three
  (FSDP). LoRA weights and their optimizer stay in float32, as peft keeps them.
- Activations of a layer and token that autograd keeps, in numbers of the precision that is computed
  in: 4h (inputs of two norms, and their outputs) + h + 2 · key_value (attention's inputs) + h (its
  output) + 3 · feed_forward (the two halves and the product of a gated layer), after Korthikanti
  et al. 2022 (arXiv 2205.05198) for a fused attention, and 2h of the last norm. With checkpointing
  h a layer and token, 2h, and one whole layer. On a tiny model that is within a factor of two of
  what autograd keeps (tests/plan).
- Operations of a token: 2P forward. Backward another 2P for activations, and 2P for weights that
  are trained. Checkpointing and GradCache each add a forward pass. A frozen vision tower runs
  forward only.
"""

from typing import NamedTuple

from metaembed.plan.backbone import Size
from metaembed.plan.gpus import Gpu
from metaembed.training.recipe import Recipe

FORWARD, BACKWARD = 2, 2
"""Operations a parameter and token; backward for activations, and again for trained weights."""
PATCHES_A_TOKEN = 4
"""Patches of the vision tower that make one visual token (2 by 2 in Qwen-VL)."""
QUERY_TEXT_TOKENS = 64


class Tokens(NamedTuple):
    """Of one item, meta tokens included."""

    query: int
    candidate: int
    visual: int
    """Of those of a candidate."""


class TrainingCost(NamedTuple):
    trained: int
    """Numbers that change."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Bytes, all four, of one GPU."""
    tokens: int
    """A step, all GPUs."""
    operations: float
    """A step, all GPUs."""
    steps: int
    hours: float | None

    @property
    def memory(self) -> int:
        """Bytes of one GPU."""
        return self.weights + self.gradients + self.optimizer + self.activations


def tokens_of(recipe: Recipe) -> Tokens:
    """The most that items of a recipe have: a text query, and a picture as candidate."""
    limit = recipe.model.groups[-1]
    visual = 0 if recipe.data.corpus is not None else recipe.model.max_visual_tokens
    text = recipe.optim.max_tokens or QUERY_TEXT_TOKENS
    candidate = (visual or text) + limit.query + limit.candidate
    return Tokens(min(text, QUERY_TEXT_TOKENS) + limit.query, candidate, visual)


def training_cost(
    recipe: Recipe,
    size: Size,
    tokens: Tokens,
    *,
    num_gpus: int = 1,
    shards: int = 1,
    gpu: Gpu | None = None,
    utilisation: float = 0.35,
) -> TrainingCost:
    """Cost of a recipe on `num_gpus`, with weights and optimizer sharded over `shards` of them."""
    optim = recipe.optim
    trained = trained_numbers(recipe, size)
    width = 4 if recipe.model.precision == "float32" else 2
    negatives = max((one.num_negatives for one in recipe.data.sources), default=0)
    candidates = 1 + negatives
    row = tokens.query + candidates * tokens.candidate
    at_once = min(optim.mini_batch_size or optim.batch_size, optim.batch_size)
    in_memory = at_once * (row if optim.mini_batch_size is None else max(tokens[:2]))
    rows = optim.batch_size * num_gpus
    operations = rows * (
        row * size.language * operations_a_token(recipe)
        + candidates * tokens.visual * PATCHES_A_TOKEN * size.vision * FORWARD
    )
    steps = optim.steps
    return TrainingCost(
        trained,
        size.parameters * width // shards,
        trained * 4 // shards,
        trained * 8 // shards,
        activation_bytes(recipe, size, in_memory),
        rows * row,
        operations,
        steps,
        None if gpu is None else steps * operations / (num_gpus * gpu.rate * utilisation) / 3600,
    )


def trained_numbers(recipe: Recipe, size: Size) -> int:
    limit = recipe.model.groups[-1]
    meta_tokens = (limit.query + limit.candidate) * size.hidden
    projection = 0 if recipe.model.dim == "full" else size.hidden * recipe.model.dim
    if recipe.lora is None:
        return size.parameters + meta_tokens + projection
    return recipe.lora.rank * size.adapters + meta_tokens + projection


def operations_a_token(recipe: Recipe) -> int:
    """Operations of a step for each parameter of the language model and token."""
    passes = FORWARD + BACKWARD
    passes += BACKWARD if recipe.lora is None else 0
    passes += FORWARD if recipe.model.gradient_checkpointing else 0
    return passes + (FORWARD if recipe.optim.mini_batch_size is not None else 0)


def activation_bytes(recipe: Recipe, size: Size, tokens: int) -> int:
    """Bytes that autograd keeps for the language model's layers, for so many tokens."""
    computed_in = 4 if recipe.optim.bf16 is False and recipe.model.precision == "float32" else 2
    layer = 6 * size.hidden + 2 * size.key_value + 3 * size.feed_forward
    if recipe.model.gradient_checkpointing:
        return tokens * computed_in * ((size.layers + 2) * size.hidden + layer)
    return tokens * computed_in * (size.layers * layer + 2 * size.hidden)
