"""Writes measured figures into the documents that show them, between markers.

python benchmarks/render.py          write
python benchmarks/render.py --check  fail when a document is not current
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from passages_tables import (
    hybrid_table,
    million_build,
    million_table,
    passages_tables,
    training_step_table,
)
from tables import cold_tables
from tables import tables as search_tables

from metaembed.cli.evaluate import table
from metaembed.evaluation.known_items import Row

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "docs/benchmarks.md",
    ROOT / "src/metaembed/mini/README.md",
]


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


TABLES: dict[str, Callable[[Any], dict[str, str]]] = {
    "mini": lambda found: {"mini": table([Row(**row) for row in found["rows"]])},
    "search": search_tables,
    "cold": cold_tables,
    "passages": passages_tables,
    "million": lambda found: {
        "million": million_table(found),
        "million-build": million_build(found),
    },
    "hybrid": lambda found: {"hybrid": hybrid_table(found)},
    "training_step": lambda found: {"training-step": training_step_table(found)},
}
"""By result file; one that is not there yet has no tables."""


def all_tables() -> dict[str, str]:
    return {
        name: text
        for result, tables_of in TABLES.items()
        if (RESULTS / f"{result}.json").exists()
        for name, text in tables_of(read(result)).items()
    }


def rendered(text: str, tables: dict[str, str]) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`."""
    for name, content in tables.items():
        start, stop = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start in text:
            before, _, rest = text.partition(start)
            text = f"{before}{start}\n{content}\n{stop}{rest.partition(stop)[2]}"
    return text


def main() -> None:
    tables = all_tables()
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        current = rendered(text, tables)
        if "--check" in sys.argv and text != current:
            sys.exit(f"{path.name} does not show the measured figures; run benchmarks/render.py.")
        path.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
