"""Costs of searches: the paper's Table 3, by hand, and what is on disk."""

import json

import numpy as np
import pytest

from metaembed.budget import Budget
from metaembed.errors import BudgetError
from metaembed.index import Index
from metaembed.plan.search import search_cost

PAPER = [("1x1", 0.668, 0.717), ("8x16", 10.68, 91.75), ("16x64", 42.72, 734.0)]
"""GiB and GFLOP of 100,000 candidates with 3,584 numbers a vector in bfloat16."""


@pytest.mark.parametrize(("budget", "gibibytes", "giga"), PAPER)
def test_the_papers_table_3_comes_out(budget, gibibytes, giga):
    parsed = Budget.parse(budget)
    cost = search_cost(100_000, dim=3584, budget=parsed, stored=parsed.candidate, dtype="bfloat16")
    assert cost.index_bytes / 2**30 == pytest.approx(gibibytes, rel=1e-3)
    assert cost.operations / 1e9 == pytest.approx(giga, rel=1e-3)
    assert cost.seconds is None


def test_latency_is_the_larger_of_reading_and_computing():
    cost = search_cost(
        1000, dim=100, budget=Budget(2, 4), stored=8, dtype="float32", bandwidth=1e6, rate=1e6
    )
    assert cost.index_bytes == 1000 * 8 * 400
    assert cost.read_bytes == 1000 * 4 * 400
    assert cost.operations == 1000 * 2 * 4 * 200
    assert (cost.seconds, cost.bound_by) == (1.6, "bytes") or cost.bound_by == "operations"
    faster = search_cost(
        1000, dim=100, budget=Budget(2, 4), stored=8, dtype="float32", bandwidth=1e9, rate=1e6
    )
    assert (faster.seconds, faster.bound_by) == (1.6, "operations")


def test_a_budget_beyond_what_is_stored_is_refused():
    with pytest.raises(BudgetError, match="64 vectors of each candidate and 8 are stored"):
        search_cost(10, dim=8, budget=Budget(16, 64), stored=8, dtype="int8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_planned_bytes_are_those_of_an_index(tmp_path, dtype):
    with Index.create(tmp_path / "i", dim=32, groups=["1x1", "2x4"], dtype=dtype) as index:
        index.add([str(n) for n in range(7)], np.ones((7, 4, 32), np.float32))
        held = index.stats().bytes_per_item
    cost = search_cost(7, dim=32, budget=Budget(2, 4), stored=4, dtype=dtype)
    assert cost.index_bytes == 7 * held


def test_the_command_prints_figures_or_one_object():
    from typer.testing import CliRunner

    from metaembed.cli.app import app

    asked = ["plan", "search", "--items", "1e6", "--dtype", "int8", "--bandwidth", "30GB/s"]
    printed = CliRunner().invoke(app, asked)
    assert "7.868 GiB" in printed.stdout
    assert "bound by bytes" in printed.stdout
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert found["read_bytes"] == 1_000_000 * 64 * 132
    wrong = CliRunner().invoke(app, ["plan", "search", "--items", "many"])
    assert "--items is a number" in str(wrong.exception)
