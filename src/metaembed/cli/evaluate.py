"""`metaembed eval`: quality by budget on text that training never saw."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaembed.cli.options import JsonOption, keep_freed_memory, quiet_libraries

if TYPE_CHECKING:
    from metaembed.evaluation.known_items import Row


def evaluate(
    model: Annotated[str, typer.Argument(help="metaembed-mini, a model folder, or a hub id.")] = (
        "metaembed-mini"
    ),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the result as JSON.")
    ] = None,
    per_package: Annotated[int, typer.Option(min=1, help="Most queries of a package.")] = 150,
    as_json: JsonOption = False,
) -> None:
    """Measure MODEL at every budget on documentation of packages that training never saw.

    Queries are headings and single sentences; each has one right candidate among all. BM25 and
    the published single vector of all-MiniLM-L6-v2 answer the same queries.
    """
    quiet_libraries()
    keep_freed_memory()
    from metaembed.data.pairs import held_out_pairs
    from metaembed.evaluation.known_items import evaluate as run
    from metaembed.models import load_model

    loaded = load_model(model)
    pairs = list(held_out_pairs(per_package=per_package))
    rows = run(loaded, pairs)
    result = {
        "model": model,
        "fingerprint": loaded.fingerprint,
        "per_package": per_package,
        "packages": sorted({pair.package for pair in pairs}),
        "rows": [row._asdict() for row in rows],
        "versions": versions(),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(result) if as_json else table(rows))


def versions() -> dict[str, str]:
    """What a result was made with."""
    import platform
    from importlib.metadata import version

    names = ("metaembed", "torch", "transformers", "sentence-transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def table(rows: "list[Row]") -> str:
    """Render rows as a Markdown table, a line a system."""
    kinds = sorted({row.kind for row in rows})
    counts = {row.kind: row.queries for row in rows}
    cells: dict[str, dict[str, Any]] = {}
    for row in rows:
        cells.setdefault(row.system, {"bytes": row.bytes_per_item})[row.kind] = row
    head = [f"{kind}s ({counts[kind]}): {m}" for kind in kinds for m in ("hit@1", "nDCG@10")]
    lines = ["| system | " + " | ".join(head) + " | bytes an item |"]
    lines.append("|---|" + "--:|" * (len(head) + 1))
    for system, cell in cells.items():
        figures = [
            f"{value:.3f}"
            for kind in kinds
            for value in (cell[kind].hit_at_1, cell[kind].ndcg_at_10)
        ]
        size = "–" if cell["bytes"] is None else f"{cell['bytes']:,}"
        lines.append(f"| {system} | " + " | ".join(figures) + f" | {size} |")
    return "\n".join(lines)
