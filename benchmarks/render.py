"""Writes measured figures into the documents that show them, between markers.

python benchmarks/render.py          write
python benchmarks/render.py --check  fail when a document is not current
"""

import json
import sys
from pathlib import Path

from metaembed.cli.evaluate import table
from metaembed.evaluation.known_items import Row

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "src/metaembed/mini/README.md"]


def mini_table() -> str:
    """Held-out quality of metaembed-mini by budget."""
    result = json.loads((ROOT / "benchmarks/results/mini.json").read_text(encoding="utf-8"))
    return table([Row(**row) for row in result["rows"]])


def rendered(text: str, tables: dict[str, str]) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`."""
    for name, content in tables.items():
        start, stop = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start in text:
            before, _, rest = text.partition(start)
            text = f"{before}{start}\n{content}\n{stop}{rest.partition(stop)[2]}"
    return text


def main() -> None:
    tables = {"mini": mini_table()}
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        current = rendered(text, tables)
        if "--check" in sys.argv and text != current:
            sys.exit(f"{path.name} does not show the measured figures; run benchmarks/render.py.")
        path.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
