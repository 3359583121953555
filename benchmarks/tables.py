"""The tables of `search.json` and `cold.json` in Markdown, for `render.py`."""

from collections.abc import Iterable, Mapping
from typing import Any

Results = Mapping[str, Any]
Spread = Mapping[str, float]

TYPES = ("float32", "bfloat16", "int8")
COMPARED_TYPES = ("bfloat16", "int8")
"""Of the kernels that stand beside the peers; the file has float32 as well."""


def tables(results: Results) -> dict[str, str]:
    """Tables of `search.json` by name. A budget that was not measured has no column."""
    cases = list(results["cases"].values())
    found = {"search-machine": machine_table(cases)}
    for num_items, dim, batch in shapes(cases):
        some = chosen(cases, num_items, dim, batch)
        name = f"{num_items}-{dim}-{batch}"
        found[f"search-times-{name}"] = times_table(some)
        found[f"search-peers-{name}"] = peers_table(some)
        if any(row["kind"] == "index" for rows in some.values() for row in rows):
            found[f"search-index-{name}"] = index_table(some)
    found["search-limits"] = limits_table(cases)
    return found


def cold_tables(results: Results) -> dict[str, str]:
    """The table of `cold.json`, by name."""
    rows = []
    for case in results["cases"].values():
        squeezed = case["squeezed"]
        rows.append(
            [
                f"{case['num_items']:,}",
                case["dtype"],
                f"{case['vector_bytes'] / 1e9:.2f} GB",
                f"{ranged(case['read_seconds'])} s",
                f"{ranged(case['search_seconds'])} s",
                f"{ranged(case['times_read'])}",
                f"{ranged(case['warm_seconds'])} s",
                f"{grown(case):.0f} MB",
                "–" if "refused" in squeezed else f"{ranged(squeezed['times_read'])}",
            ]
        )
    heads = ["items", "type", "vectors", "plain read", "cold search", "search over read"]
    heads += ["warm search", "anonymous memory of a search", "search over read, memory for half"]
    return {"search-cold": markdown(heads, rows)}


def grown(case: Results) -> float:
    """MB of anonymous memory at the peak over what there was before the index was opened."""
    before, peak = case["anonymous_bytes_before"], case["anonymous_bytes_peak"]
    return (peak["median"] - before["median"]) / 1e6


def shapes(cases: list[Results]) -> list[tuple[int, int, int]]:
    """Every (items, dim, batch) that was measured, in order."""
    found = {
        (case["dim"], -case["num_items"], measured["batch"])
        for case in cases
        for measured in case["batches"]
    }
    return [(-num_items, dim, batch) for dim, num_items, batch in sorted(found)]


def chosen(cases: list[Results], num_items: int, dim: int, batch: int) -> dict[str, list[Results]]:
    """Rows by budget, the smallest budget first."""
    found = {
        case["budget"]: measured["rows"]
        for case in cases
        for measured in case["batches"]
        if (case["num_items"], case["dim"], measured["batch"]) == (num_items, dim, batch)
    }
    return dict(sorted(found.items(), key=lambda item: tuple(map(int, item[0].split("x")))))


def machine_table(cases: list[Results]) -> str:
    """What the machine can do: the median over the cases of what each of them measured."""
    heads = ["threads", "reads, GB/s"]
    types = list(cases[0]["machine"]["instructions"])
    heads += [f"{dtype}, Gop/s" for dtype in types]
    rows = []
    for threads in cases[0]["machine"]["threads"]:
        reports = [case["machine"]["threads"][threads] for case in cases]
        cells = [over_cases(report["gigabytes_per_second"] for report in reports)]
        for dtype in types:
            rates = (report["giga_operations_per_second"][dtype] for report in reports)
            cells.append(over_cases(rates))
        rows.append([threads, *cells])
    return markdown(heads, rows)


def over_cases(spreads: Iterable[Spread]) -> str:
    medians = sorted(spread["median"] for spread in spreads)
    middle = medians[len(medians) // 2]
    return f"{figure(middle)} ({figure(medians[0])}–{figure(medians[-1])})"


def times_table(some: dict[str, list[Results]]) -> str:
    """Milliseconds, and the smallest top-10 overlap with float32 of the row."""
    rows = []
    for name in names(some, {"kernel", "peer", "index"}):
        found = {budget: row_of(rows_, name) for budget, rows_ in some.items()}
        overlap = min(row["overlap"] for row in found.values() if row)
        cells = [figure(row["milliseconds"]["median"]) if row else "" for row in found.values()]
        rows.append([name, *cells, f"{overlap:.3f}"])
    return markdown(["ms", *some, "top-10 overlap, lowest"], rows)


def peers_table(some: dict[str, list[Results]]) -> str:
    """How many times as long as our kernel each peer takes, by the kernel's type."""
    rows = []
    for name in names(some, {"peer"}):
        for dtype in COMPARED_TYPES:
            found = [row_of(rows_, name) for rows_ in some.values()]
            spreads = [row and row["times_kernel"].get(dtype) for row in found]
            if any(spreads):
                cells = [ranged(spread) if spread else "" for spread in spreads]
                rows.append([name, dtype, *cells])
    return markdown(["times as long as the kernel", "kernel", *some], rows)


def index_table(some: dict[str, list[Results]]) -> str:
    """What `Index.search`, and mapping files alone, adds to the bare kernel over the same items."""
    rows = []
    for name in names(some, {"mapped kernel", "index"}):
        found = [row_of(rows_, name) for rows_ in some.values()]
        cells = []
        for row in found:
            if row:
                times = row["times_kernel"][row["dtype"]]
                longer = figure(row["milliseconds_over_kernel"]["median"])
                cells.append(f"{ranged(times)}, {longer} ms")
            else:
                cells.append("")
        rows.append([name, *cells])
    return markdown(["times as long as the kernel, and ms longer", *some], rows)


def limits_table(cases: list[Results]) -> str:
    """The kernel's share of the machine's limit, everywhere."""
    rows = []
    for num_items, dim, batch in shapes(cases):
        for budget, found in chosen(cases, num_items, dim, batch).items():
            kernels = [row_of(found, f"kernel {dtype}") for dtype in TYPES]
            shares = [f"{percent(row['fraction_of_limit'])}" if row else "" for row in kernels]
            bound = {row["bound_by"] for row in kernels if row}
            rows.append(
                [f"{num_items:,}", str(dim), str(batch), budget, *shares, " / ".join(sorted(bound))]
            )
    return markdown(["items", "dim", "batch", "budget", *TYPES, "bound by"], rows)


def names(some: dict[str, list[Results]], kinds: set[str]) -> list[str]:
    """The names of rows without a filter of the kernel, and of all the others, in order."""
    found: dict[str, None] = {}
    for rows in some.values():
        for row in rows:
            if row["kind"] in kinds and not (row["kind"] == "kernel" and row["filter"]):
                found[row["name"]] = None
    return list(found)


def row_of(rows: list[Results], name: str) -> Results | None:
    return next((row for row in rows if row["name"] == name), None)


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ranged(spread: Spread) -> str:
    return f"{figure(spread['median'])} ({figure(spread['p10'])}–{figure(spread['p90'])})"


def percent(spread: Spread) -> str:
    low, middle, high = (f"{100 * spread[name]:.0f}" for name in ("p10", "median", "p90"))
    return f"{middle} % ({low}–{high})"


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Text in the first column, figures to the right in the others."""
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
