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
            cells.append([name, ranged(row["ms"]), f"{row['right_first']} of {row['queries']}"])
    return markdown(["search", "ms", "planted answer first"], cells)


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
