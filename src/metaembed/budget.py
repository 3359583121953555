"""How many vectors to spend on each side of a match."""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from metaembed.errors import BudgetError


class Budget(NamedTuple):
    """`query` vectors per query, `candidate` vectors per candidate, written `4x8`.

    Spending less is always taking a prefix: a 2x4 budget uses the first vectors of a 4x8 one.

    >>> Budget.parse("4x8")
    Budget(query=4, candidate=8)
    >>> str(Budget(16, 64))
    '16x64'
    """

    query: int
    candidate: int

    @classmethod
    def parse(cls, value: "Budget | str") -> "Budget":
        """Read `4x8`; a `Budget` passes through. Raises `BudgetError` for anything else."""
        if isinstance(value, Budget):
            text = str(value)
        elif isinstance(value, str):
            text = value
        else:
            raise BudgetError(f"A budget is written like 4x8, not {value!r}.")
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text, flags=re.ASCII)
        if match is None:
            raise BudgetError(
                f"Budget {text!r} is not of the form QxC with both at least 1, for example 4x8."
            )
        return cls(int(match[1]), int(match[2]))

    def fits(self, limit: "Budget") -> bool:
        return self.query <= limit.query and self.candidate <= limit.candidate

    def require_fits(self, limit: "Budget", *, of: str) -> None:
        """Raise `BudgetError` unless `self` is within `limit`; `of` names whose limit it is."""
        if not self.fits(limit):
            raise BudgetError(
                f"Budget {self} is larger than {of} provides ({limit}). Ask for at most {limit}."
            )

    def __str__(self) -> str:
        return f"{self.query}x{self.candidate}"


PAPER_GROUPS = (Budget(1, 1), Budget(2, 4), Budget(4, 8), Budget(8, 16), Budget(16, 64))
"""The five nested groups that the paper trains (section 1 of the method)."""


def parse_groups(values: Sequence[Budget | str]) -> tuple[Budget, ...]:
    """Read nested groups, smallest first.

    Raises `BudgetError` when there are none, or when one is not larger than the group before it
    on at least one side and not smaller on the other.
    """
    groups = tuple(Budget.parse(value) for value in values)
    if not groups:
        raise BudgetError("At least one group is needed, for example 1x1.")
    for small, large in itertools.pairwise(groups):
        if not small.fits(large) or small == large:
            raise BudgetError(
                f"Groups must be nested, smallest first; {large} does not contain {small}."
            )
    return groups
