"""Cascades: cheap scores of all items, dearer ones of the best of them, the full score of few.

Written `16x4:1000,16x16:100`: score 16 query vectors against 4 of every item and keep 1,000, score
those with 16 and keep 100; what is left gets the score of the search's own budget. `~16x64:500`
reads the index's sketch instead of its planes.

What a cascade returns has exact scores; it can miss an item that an early stage ranked too low.
"""

import itertools
import re
from typing import NamedTuple

from metaembed.budget import Budget
from metaembed.errors import BudgetError

FORM = "A cascade is written like 16x4:1000 or ~16x64:500, stages divided by commas"


class Stage(NamedTuple):
    """Score at `budget` and keep the best `keep`; of the sketch, if `sketch`.

    >>> Stage.parse("16x4:1000")
    Stage(budget=Budget(query=16, candidate=4), keep=1000, sketch=False)
    """

    budget: Budget
    keep: int
    sketch: bool = False

    @classmethod
    def parse(cls, text: str) -> "Stage":
        """Raises `BudgetError`."""
        match = re.fullmatch(r"(~?)(\d+x\d+):([1-9]\d{0,8})", text.strip(), flags=re.ASCII)
        if match is None:
            raise BudgetError(f"{FORM}; {text!r} is not.")
        return cls(Budget.parse(match[2]), int(match[3]), bool(match[1]))

    def __str__(self) -> str:
        return f"{'~' * self.sketch}{self.budget}:{self.keep}"


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
            if stage.sketch and not has_sketch:
                raise BudgetError(
                    f"Stage {stage} reads a sketch and {of} has none. Leave out '~', or copy the "
                    "index with a sketch."
                )

    def __str__(self) -> str:
        return ",".join(map(str, self.stages))
