"""Tables and figures of docs/claims.md from benchmarks/results/claims.json.

python benchmarks/claims/report.py
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from chart import Line, line_chart
from provenance import ROOT
from render import rendered
from tables import markdown
from variants import PAPER, QUESTIONS, VARIANTS

RESULTS = ROOT / "benchmarks/results/claims.json"
DOCUMENT = ROOT / "docs/claims.md"
FIGURES = ROOT / "docs/figures"
METRIC = "ndcg@5"

Runs = dict[str, list[dict[str, Any]]]
"""Finished runs by variant."""


def main() -> None:
    found = json.loads(RESULTS.read_text())
    runs: Runs = defaultdict(list)
    for run in found["runs"]:
        runs[run["name"]].append(run)
    texts = {f"claims-{question}": table(names, runs) for question, names in QUESTIONS.items()}
    texts["claims-kinds"] = kinds_table(runs)
    texts["claims-setup"] = setup(found, runs)
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(), texts))
    FIGURES.mkdir(exist_ok=True)
    for question, names in QUESTIONS.items():
        lines = [line for name in names if (line := line_of(name, runs)) is not None]
        title = "NDCG@5, mean of three kinds of queries"
        (FIGURES / f"claims-{question}.svg").write_text(line_chart(title, list(PAPER), lines))


def values(runs: list[dict[str, Any]], budget: str, kind: str = "mean") -> list[float]:
    return [run["quality"][budget][kind][METRIC] for run in runs if budget in run["quality"]]


def cell(found: list[float]) -> str:
    """Mean over seeds, and the lowest and the highest."""
    if not found:
        return ""
    mean = statistics.fmean(found)
    return f"{mean:.3f} ({min(found):.3f}–{max(found):.3f})"


def table(names: tuple[str, ...], runs: Runs) -> str:
    cells = [
        [f"`{name}`", ", ".join(VARIANTS[name].groups), str(VARIANTS[name].dim)]
        + [cell(values(runs[name], budget)) for budget in PAPER]
        for name in names
        if runs[name]
    ]
    return markdown(["variant", "groups", "dim", *PAPER], cells)


def kinds_table(runs: Runs) -> str:
    kinds = [("text", "words"), ("picture", "a picture"), ("both", "a picture and words")]
    cells = [
        [words, *(cell(values(runs["mmr"], budget, kind)) for budget in PAPER)]
        for kind, words in kinds
    ]
    return markdown(["query", *PAPER], cells)


def setup(found: dict[str, Any], runs: Runs) -> str:
    seconds = [run["seconds"] for run in found["runs"]]
    seeds = sorted({len(some) for some in runs.values()})
    made = found["provenance"]
    return (
        f"{len(found['runs'])} runs of {found['steps']:,} steps, "
        f"{' or '.join(map(str, seeds))} seeds a variant, {statistics.median(seconds):.0f} s each "
        f"on one thread of {made['cores']} shared cores ({made['date'][:10]}, "
        f"commit {made['commit'][:7]}, torch {made['versions']['torch']})."
    )


def line_of(name: str, runs: Runs) -> Line | None:
    points = {budget: values(runs[name], budget) for budget in PAPER}
    known = {budget: some for budget, some in points.items() if some}
    if not known:
        return None
    return Line(
        name,
        {budget: statistics.fmean(some) for budget, some in known.items()},
        {budget: (min(some), max(some)) for budget, some in known.items()},
    )


if __name__ == "__main__":
    main()
