"""What a caller asks of an index, checked: budgets, cascades, queries and how many hits."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from metaembed.budget import Budget
from metaembed.errors import BudgetError, IndexMismatchError
from metaembed.index.arrays import VectorsLike, as_vectors
from metaembed.index.cascade import Cascade
from metaembed.index.planning import default_cascade
from metaembed.index.search import Request
from metaembed.index.store import Store


def new_request(
    store: Store,
    vectors: VectorsLike,
    budget: Budget | str | None,
    k: int,
    cascade: Cascade | str | None = None,
) -> Request:
    """Check what a search is asked for; `cascade` may be "auto"."""
    spent = budget_of(store, budget)
    if cascade == "auto":
        cascade = auto_cascade(store, spent, k)
    cascade = None if cascade is None else _cascade_of(store, cascade)
    stages = cascade.stages if cascade else ()
    queries = queries_of(store, vectors, [spent, *(stage.budget for stage in stages)])
    require_k(k)
    if stages and stages[-1].keep < k:
        raise BudgetError(
            f"The last stage of the cascade keeps {stages[-1].keep} items and {k} hits "
            "are asked for. Keep more."
        )
    return Request(queries, spent, k, cascade)


def budget_of(store: Store, budget: Budget | str | None) -> Budget:
    """The largest that the index has where none is given; `BudgetError` for one beyond that."""
    limit = store.manifest.limit
    if budget is None:
        return limit
    parsed = Budget.parse(budget)
    parsed.require_fits(limit, of=f"index {store.name!r}")
    return parsed


def auto_cascade(store: Store, budget: Budget, k: int) -> Cascade | None:
    """See `Index.default_cascade`."""
    with store.reading():
        num_items = store.catalog.num_items()
    return default_cascade(budget, k, num_items, [plane.stop for plane in store.segments.layout])


def queries_of(
    store: Store, vectors: VectorsLike, budgets: Sequence[Budget]
) -> Float[np.ndarray, "Q r dim"]:
    """As many vectors of each query as the largest of the budgets takes, in float32."""
    queries = as_vectors(vectors, dim=store.manifest.dim, dtype="float32", side="query")
    budget = max(budgets, key=lambda one: one.query)
    if queries.shape[1] < budget.query:
        raise BudgetError(
            f"Budget {budget} needs {budget.query} vectors per query and these queries have "
            f"{queries.shape[1]}. Encode more, or ask for a smaller budget."
        )
    return queries[:, : budget.query].astype(np.float32, order="C")


def require_k(k: int) -> None:
    if not isinstance(k, int) or k < 1:
        raise IndexMismatchError(f"k is {k!r}; ask for at least 1 hit.")


def require_texts(texts: Sequence[str], num_queries: int) -> None:
    if isinstance(texts, str) or len(texts) != num_queries:
        raise IndexMismatchError(f"texts must be a list of {num_queries} strings, a query's each.")


def _cascade_of(store: Store, cascade: Cascade | str) -> Cascade:
    parsed = Cascade.parse(cascade)
    has_sketch = store.manifest.sketch is not None
    parsed.require_fits(store.manifest.limit, has_sketch=has_sketch, of=f"index {store.name!r}")
    return parsed
