"""What an index holds and what a query reads and computes, at a budget."""

from typing import NamedTuple

from metaembed.budget import Budget
from metaembed.errors import BudgetError
from metaembed.storage import StorageType, num_bytes


class SearchCost(NamedTuple):
    index_bytes: int
    """Of all candidate vectors that are stored."""
    read_bytes: int
    """Of the candidate vectors that one query at the budget looks at."""
    operations: int
    """Of one query: a multiplication and its addition are two."""
    seconds: float | None
    """The larger of reading and computing; None where no bandwidth is stated."""
    bound_by: str | None


def search_cost(
    num_items: int,
    *,
    dim: int,
    budget: Budget,
    stored: int,
    dtype: StorageType,
    bandwidth: float | None = None,
    rate: float | None = None,
) -> SearchCost:
    """Cost of an exact search over `num_items` with `stored` vectors each.

    The paper's forms (its Table 3): N · r_c · bytes of a vector, and N · r_q · r_c · 2 · dim.
    `bandwidth` is in bytes a second, `rate` in operations a second. Raises `BudgetError` when the
    budget takes more vectors than are stored.
    """
    if budget.candidate > stored:
        raise BudgetError(
            f"Budget {budget} reads {budget.candidate} vectors of each candidate and {stored} are "
            "stored. Store more, or spend less."
        )
    vector = num_bytes(dtype, dim)
    read = num_items * budget.candidate * vector
    operations = num_items * budget.query * budget.candidate * 2 * dim
    times = {}
    if bandwidth:
        times["bytes"] = read / bandwidth
    if rate:
        times["operations"] = operations / rate
    bound = max(times, key=lambda name: times[name]) if times else None
    return SearchCost(
        num_items * stored * vector,
        read,
        operations,
        times[bound] if bound is not None else None,
        bound,
    )
