"""Cascades: cheap scores of all items, dearer ones of the best of them, the full score of few.

Written `16x4:1000,16x16:100`: score 16 query vectors against 4 of every item and keep 1,000, score
those with 16 and keep 100; what is left gets the score of the search's own budget. `sum16x4:1000`
adds the 16 query vectors up first and scores their sum, for the price of one; `~16x64:500` reads
the index's sketch instead of its planes.

What a cascade returns has exact scores; it can miss an item that an early stage ranked too low.

The sum of a query's vectors is a good first look because maxsim is never less than what one
candidate vector gives to all of them: sum_i max_j q_i.c_j >= max_j (sum_i q_i).c_j.
"""

import itertools
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metaembed.budget import Budget
from metaembed.errors import BudgetError

FORM = "A cascade is written like sum16x1:2000,16x4:500, stages divided by commas"


class Stage(NamedTuple):
    """Score at `budget` and keep the best `keep`; see above for the rest.

    >>> Stage.parse("sum16x4:1000")
    Stage(budget=Budget(query=16, candidate=4), keep=1000, is_summed=True, is_sketch=False)
    """

    budget: Budget
    keep: int
    is_summed: bool = False
    is_sketch: bool = False

    @classmethod
    def parse(cls, text: str) -> "Stage":
        """Raises `BudgetError`."""
        form = r"(~?)(sum)?(\d+x\d+):([1-9]\d{0,8})"
        match = re.fullmatch(form, text.strip(), flags=re.ASCII)
        if match is None:
            raise BudgetError(f"{FORM}; {text!r} is not.")
        return cls(Budget.parse(match[3]), int(match[4]), bool(match[2]), bool(match[1]))

    def vectors(self, queries: Float[np.ndarray, "Q r dim"]) -> Float[np.ndarray, "Q r_q dim"]:
        """What this stage scores of the queries."""
        spent = queries[:, : self.budget.query]
        return spent.sum(axis=1, keepdims=True) if self.is_summed else spent

    def __str__(self) -> str:
        return f"{'~' * self.is_sketch}{'sum' * self.is_summed}{self.budget}:{self.keep}"


class Cascade(NamedTuple):
    """Stages in the order in which they run, each keeping no more than the one before.

    >>> str(Cascade.parse("16x4:1000, 16x16:100"))
    '16x4:1000,16x16:100'
    """

    stages: tuple[Stage, ...]

    @classmethod
    def parse(cls, value: "Cascade | str") -> "Cascade":
        """Read the written form; a `Cascade` is checked. Raises `BudgetError`."""
        if not isinstance(value, Cascade | str):
            raise BudgetError(f"{FORM}; {value!r} is not.")
        stages = tuple(Stage.parse(text) for text in str(value).split(","))
        for before, after in itertools.pairwise(stages):
            if after.keep > before.keep:
                raise BudgetError(
                    f"Stage {after} of a cascade keeps more than {before} before it. "
                    "Order the stages by what they keep, most first."
                )
        return cls(stages)

    def require_fits(self, limit: Budget, *, has_sketch: bool, of: str) -> None:
        """Raise `BudgetError` for a stage that needs what the index does not have."""
        for stage in self.stages:
            stage.budget.require_fits(limit, of=of)
            if stage.is_sketch and not has_sketch:
                raise BudgetError(
                    f"Stage {stage} reads a sketch and {of} has none. Leave out '~', or copy the "
                    "index with a sketch."
                )

    def __str__(self) -> str:
        return ",".join(map(str, self.stages))
