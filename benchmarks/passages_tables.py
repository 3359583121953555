"""The tables of real embeddings, of a million items and of hybrid search, for `render.py`."""

from collections.abc import Mapping
from typing import Any

from tables import markdown, ranged

Results = Mapping[str, Any]

CORPORA = ("passages", "demo")


def passages_tables(results: Results) -> dict[str, str]:
    """Of `passages.json`."""
    cases = results["cases"]
    found = {}
    for corpus in CORPORA:
        found[f"losses-{corpus}"] = losses_table(cases[f"{corpus}-losses"]["rows"])
    for part, table in {"cascades": cascades_table, "certified": certified_table}.items():
        rows = {one: cases[f"{one}-{part}"]["rows"] for one in CORPORA if f"{one}-{part}" in cases}
        found[part] = table(rows)
    return found


def losses_table(rows: list[Results]) -> str:
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    cells = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        mine = {row["budget"]: row for row in rows if row["dtype"] == dtype}
        overlaps = [f"{mine[budget]['overlap']['mean']:.3f}" for budget in budgets]
        cells.append([dtype, f"{mine[budgets[-1]]['bytes']:,}", *overlaps])
    return markdown(["type", f"bytes an item at {budgets[-1]}", *budgets], cells)


def cascades_table(by_corpus: Mapping[str, list[Results]]) -> str:
    cells = [
        [
            f"{corpus}, {case['items']:,}",
            case["dtype"],
            name,
            way["cascade"],
            f"{way['recall']['mean']:.4f}",
            f"{way['recall']['p5']:.2f}",
            spread_of(way["ms"]),
            f"{way['speedup']:.1f}",
        ]
        for corpus, cases in by_corpus.items()
        for case in cases
        for name, way in case["ways"].items()
    ]
    heads = ["items", "type", "search", "stages", "recall of top 10", "of the worst 5 %"]
    return markdown([*heads, "ms", "times exact"], cells)


def certified_table(by_corpus: Mapping[str, list[Results]]) -> str:
    cells = [
        [
            f"{corpus}, {case['items']:,}",
            case["dtype"],
            f"{case['equal_to_exact']} of {case['queries']}",
            f"{100 * case['share_scored_in_full']['median']:.2f} %",
            f"{100 * case['share_scored_in_full']['p95']:.2f} %",
            spread_of(case["ms"]["exact"]),
            spread_of(case["ms"]["certified"]),
            f"{case['speedup']:.2f}",
        ]
        for corpus, cases in by_corpus.items()
        for case in cases
    ]
    heads = ["items", "type", "equal to exact", "scored in full", "95th percentile"]
    return markdown([*heads, "exact, ms", "certified, ms", "times exact"], cells)


def million_table(results: Results) -> str:
    """Of `million.json`."""
    cells = []
    for case in results["cases"].values():
        for name, row in case["searches"].items():
            options = row["options"]
            right = "–" if "filter" in options else f"{row['right_first']} of {row['queries']}"
            cascade = options.get("cascade")
            cells.append([f"{name} `{cascade}`" if cascade else name, ranged(row["ms"]), right])
    return markdown(["search", "ms", "planted answer first"], cells)


def million_build(results: Results) -> str:
    """Of `million.json`: what building took."""
    cells = []
    for case in results["cases"].values():
        stats = case["stats"]
        cells.append(
            [
                f"{case['items']:,}",
                f"{case['build_s']:.0f} s",
                f"{case['items'] / case['build_s']:,.0f}",
                f"{stats['bytes_on_disk'] / 1e9:.2f} GB",
                f"{stats['bytes_per_item']:,}",
                f"{case['peak_memory_bytes'] / 1e6:.0f} MB",
                f"{1000 * case['first_search_s']:.0f} ms",
            ]
        )
    heads = [
        "items",
        "build, data made on the way",
        "items a second",
        "on disk",
        "vector bytes an item",
    ]
    return markdown([*heads, "peak memory of building", "open and first search at 1x1"], cells)


def training_step_table(results: Results) -> str:
    """Of `training_step.json`: times of other losses."""
    cells = [
        [
            case,
            *ratio.split(" / "),
            f"{spread['median']:.2f} ({spread['p10']:.2f}–{spread['p90']:.2f})",
        ]
        for case, found in results["cases"].items()
        for ratio, spread in found["ratios"].items()
    ]
    return markdown(["case", "step with", "over that of", "ratio"], cells)


def hybrid_table(results: Results) -> str:
    """Of `hybrid.json`."""
    cells = []
    for row in results["rows"]:
        cells.append(
            [
                row["kind"],
                row["budget"],
                row["system"],
                f"{row['hit_at_1']:.3f}",
                f"{row['ndcg_at_10']:.3f}",
            ]
        )
    return markdown(["queries", "budget", "system", "hit@1", "nDCG@10"], cells)


def spread_of(ms: Results) -> str:
    return f"{ms['median']:.3g} ({ms['p10']:.3g}–{ms['p90']:.3g})"
