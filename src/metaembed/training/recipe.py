"""A recipe: everything that decides what a training run computes, in one TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from metaembed.budget import Budget
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
    config: dict[str, Any] = {}
    """Changes to the backbone's configuration, for example its dropout."""


class LoraSection(_Section):
    rank: PositiveInt
    alpha: PositiveInt
    targets: tuple[str, ...]
    """Names of the linear layers that get an adapter."""


class DataSection(_Section):
    corpus: Literal["python-docs"]
    """Documentation of the Python installation that trains; see `metaembed.data`."""
    per_package: PositiveInt
    """Most pairs taken from one package."""


class OptimSection(_Section):
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    meta_token_learning_rate: PositiveFloat
    """The meta tokens start from noise and may move faster than the rest."""
    warmup_steps: NonNegativeInt
    temperature: PositiveFloat
    max_tokens: PositiveInt
    """An item is cut to this many tokens while training."""
    score: Literal["sum", "mean"] = "sum"
    """The paper sums over query vectors; the mean gives all groups one effective temperature."""
    group_weight: PositiveFloat = 1.0
    """Weight of each group's loss."""
    anchor: NonNegativeFloat = 0.0
    """Weight of the term that ties the vectors to the backbone's own; see `AnchoredMMRLoss`."""
    save_steps: PositiveInt


class Recipe(_Section):
    seed: int
    model: ModelSection
    lora: LoraSection
    data: DataSection
    optim: OptimSection


def load_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises `RecipeError` that names every wrong entry, in one line."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RecipeError(f"There is no recipe {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path.name} is not a readable TOML file: {error}.") from None
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
        )
        raise RecipeError(f"{path.name} is not a valid recipe. {wrong}.") from None
