"""What is measured: numbers of items, dims and budgets, and who takes part."""

import fnmatch
from collections.abc import Iterator
from typing import NamedTuple

from peers import PEERS

from metaembed.budget import PAPER_GROUPS, Budget
from metaembed.storage import StorageType

QUICK_ITEMS = 2000

ALL_TYPES: tuple[StorageType, ...] = ("float32", "bfloat16", "int8")
SMALL_TYPES: tuple[StorageType, ...] = ("bfloat16", "int8")
ALL_PEERS = tuple(PEERS)
MEMORY_PEERS = tuple(name for name in PEERS if not name.startswith("Qdrant"))
TORCH_PEERS = ("torch bf16, rows", "torch bf16, columns")


class Case(NamedTuple):
    num_items: int
    dim: int
    budget: Budget
    types: tuple[StorageType, ...] = ALL_TYPES
    peers: tuple[str, ...] = TORCH_PEERS
    public: bool = False
    """Whether `Index.search` runs as well."""

    def __str__(self) -> str:
        return f"{self.num_items}-{self.dim}-{self.budget}"


def cases() -> Iterator[Case]:
    """All of them. What is left out at the larger widths does not fit in memory together."""
    *small, largest = PAPER_GROUPS
    for budget in PAPER_GROUPS:
        yield Case(100_000, 128, budget, peers=ALL_PEERS, public=True)
    for budget in (Budget(3, 5), Budget(6, 20), Budget(12, 48)):
        yield Case(100_000, 128, budget)
    for budget in small:
        yield Case(100_000, 512, budget, peers=MEMORY_PEERS)
    yield Case(50_000, 512, largest, types=SMALL_TYPES, peers=MEMORY_PEERS)
    for dim in (2048, 3584):
        for budget in small:
            yield Case(10_000, dim, budget)
        yield Case(10_000, dim, largest, types=SMALL_TYPES)


def chosen_cases(patterns: list[str], *, quick: bool) -> list[Case]:
    """The cases whose name matches one of the patterns, or all; with few items, if `quick`."""
    found = list(cases())
    if quick:
        found = [case._replace(num_items=QUICK_ITEMS) for case in found]
    return [
        case
        for case in dict.fromkeys(found)
        if not patterns or any(fnmatch.fnmatchcase(str(case), some) for some in patterns)
    ]
