"""What `verify` looks for in a catalog. Damage to vectors is found by `Segments.problems`."""

import numpy as np

from metaembed.errors import IndexFormatError
from metaembed.index import legacy
from metaembed.index.catalog import Catalog
from metaembed.index.snapshot import Snapshot

METADATA_PROBLEM = "SELECT 1 FROM items WHERE NOT json_valid(metadata) LIMIT 1"


def catalog_problems(catalog: Catalog) -> list[str]:
    """Read the whole catalog, inside a transaction, and describe what is wrong with it."""
    found = catalog.database.execute("PRAGMA integrity_check").fetchone()[0]
    problems = [] if found == "ok" else [f"SQLite finds {' '.join(str(found).split())}"]
    problems += _legacy_problems(catalog) if catalog.is_legacy() else _item_problems(catalog)
    if catalog.database.execute(METADATA_PROBLEM).fetchone() is not None:
        problems.append("the metadata of an item is not JSON")
    return [f"Index {catalog.name!r}: {problem} (catalog.sqlite)." for problem in problems]


def _legacy_problems(catalog: Catalog) -> list[str]:
    return [
        problem
        for problem, query in legacy.PROBLEMS.items()
        if catalog.database.execute(f"{query} LIMIT 1").fetchone() is not None
    ]


def _item_problems(catalog: Catalog) -> list[str]:
    """Compare the items with the rows that should be theirs."""
    try:
        entries = catalog.entries({})
    except IndexFormatError as error:
        return [str(error).rstrip(".")]
    live = Snapshot(catalog.name, 0, entries).sequences
    items = catalog.item_sequences()
    problems = []
    if len(np.setdiff1d(items, live, assume_unique=True)):
        problems.append("an item has no row in any segment")
    if len(np.setdiff1d(live, items, assume_unique=True)):
        problems.append("a row that is not deleted has no item")
    if len(np.setdiff1d(catalog.texts().sequences(), items, assume_unique=True)):
        problems.append("a text has no item")
    return problems
