"""A recipe: everything that decides what a training run computes, in one TOML file."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from metaembed.budget import Budget
from metaembed.data.settings import SourceSettings
from metaembed.errors import RecipeError

BudgetText = Annotated[Budget, BeforeValidator(Budget.parse)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    backbone: str
    """A folder or hub id that sentence-transformers' `Transformer` loads."""
    groups: tuple[BudgetText, ...]
    """Nested training prefixes, smallest first; the last one sets the numbers of meta tokens."""
    dim: PositiveInt | Literal["full"]
    """Width of a vector: of a trained projection, or the backbone's own."""
    projection: Literal["orthogonal", "principal"] = "orthogonal"
    """What the projection starts from: random directions, or the principal ones of the backbone's
    states of training candidates (text only)."""
    max_visual_tokens: PositiveInt = 1024
    """A picture is made smaller until it has no more."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in memory; `bfloat16` for backbones that would not fit otherwise."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """`auto`: FlashAttention-2 where it is installed and there is a GPU, else SDPA, and on a CPU
    eager, where padding and bfloat16 make the fused kernel several times slower."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    config: dict[str, Any] = {}
    """Changes to the backbone's configuration, for example its dropout."""


class LoraSection(_Section):
    rank: PositiveInt
    alpha: PositiveInt
    targets: tuple[str, ...] | None = None
    """Names of the linear layers that get an adapter; the family's own choice by default."""
    dropout: NonNegativeFloat = 0.0
    init: Literal["default", "gaussian"] = "default"


class DataSection(_Section):
    corpus: Literal["python-docs"] | None = None
    """Documentation of the Python installation that trains; see `metaembed.data`."""
    per_package: PositiveInt = 7000
    """Most pairs taken from one package of that corpus."""
    sources: tuple[SourceSettings, ...] = ()
    interleave: PositiveInt | None = None
    """Rows in a row from one source within a batch; a whole batch by default."""
    avoid_duplicates: bool = True
    """No batch of a process has two rows with the same query or the same positive."""
    held_out: NonNegativeInt = 0
    """Last rows of every source that are kept for validation."""

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        if (self.corpus is None) == (not self.sources):
            raise ValueError("give either corpus or sources")
        return self


class OptimSection(_Section):
    steps: PositiveInt
    batch_size: PositiveInt
    """Rows a process and step; in-batch negatives come from the rows of all processes."""
    mini_batch_size: PositiveInt | None = None
    """Rows that are in memory at once (GradCache); gradients stay those of the whole batch."""
    gather: Literal["none", "positives", "all"] = "positives"
    """Whose candidates are negatives on every process: nobody's, positives', all."""
    learning_rate: PositiveFloat
    meta_token_learning_rate: PositiveFloat | None = None
    """The meta tokens start from noise and may move faster than the rest."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    temperature: PositiveFloat
    max_tokens: PositiveInt | None = None
    """An item is cut to this many tokens while training."""
    score: Literal["sum", "mean"] = "sum"
    """The paper sums over query vectors; the mean gives all groups one effective temperature."""
    group_weight: PositiveFloat = 1.0
    """Weight of each group's loss."""
    false_negative_margin: PositiveFloat | None = None
    """Leave out negatives that score above this share of the positive's score."""
    anchor: NonNegativeFloat = 0.0
    """Weight of the term that ties the vectors to the backbone's own; see `AnchoredMMRLoss`."""
    bf16: bool | Literal["auto"] = "auto"
    """Compute in bfloat16; `auto`: where the processor multiplies it natively."""
    workers: NonNegativeInt = 0
    """Processes that read and decode rows ahead."""
    save_steps: PositiveInt
    keep_checkpoints: PositiveInt = 1


class ReportSection(_Section):
    log_steps: PositiveInt = 10
    validate_steps: PositiveInt | None = None
    """How often held-out rows are retrieved at every budget; `save_steps` by default."""
    to: tuple[str, ...] = ()
    """Integrations of the trainer: `tensorboard`, `wandb`, `mlflow`, …"""


class Recipe(_Section):
    seed: int
    model: ModelSection
    lora: LoraSection | None = None
    """Leave out to train all weights."""
    data: DataSection
    optim: OptimSection
    report: ReportSection = ReportSection()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.model.projection == "principal" and self.data.corpus is None:
            raise ValueError("model.projection = 'principal' needs a text corpus")
        if self.optim.anchor and self.optim.mini_batch_size is not None:
            raise ValueError("optim.anchor does not go with optim.mini_batch_size")
        return self


def load_recipe(path: Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply changes like `optim.steps=10`.

    Raises `RecipeError` that names every wrong entry, in one line.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"There is no recipe {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path.name} is not a readable TOML file: {error}.") from None
    for change in changes:
        _apply(entries, change)
    try:
        return Recipe.model_validate(entries)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
        )
        raise RecipeError(f"{path.name} is not a valid recipe. {wrong}.") from None


def _apply(entries: dict[str, Any], change: str) -> None:
    """Set one entry, `a.b=value` or `a.0.b=value`; the value is TOML, or a plain word."""
    name, equals, text = change.partition("=")
    *parents, last = name.strip().split(".")
    if not equals or not all([*parents, last]):
        raise RecipeError(f"A change is written section.entry=value, not {change!r}.")
    at: Any = entries
    for parent in parents:
        if isinstance(at, list) and parent.isdecimal() and int(parent) < len(at):
            at = at[int(parent)]
        elif isinstance(at, dict):
            at = at.setdefault(parent, {})
        else:
            raise RecipeError(f"The recipe has no {name!r} to change; {parent!r} is not there.")
    if not isinstance(at, dict):
        raise RecipeError(f"The recipe has no {name!r} to change.")
    try:
        at[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        at[last] = text.strip()
