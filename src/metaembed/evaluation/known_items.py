"""Known-item search on text that training never saw: one right candidate a query, by budget."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from metaembed.baselines.bm25 import BM25
from metaembed.baselines.single_vector import SingleVector
from metaembed.data.mining import Pair
from metaembed.encode import encode_candidates
from metaembed.evaluation.metrics import hit_from_ranks, ndcg_from_ranks, ranks_of_gold
from metaembed.model import MetaEmbed
from metaembed.scoring import maxsim


class Row(NamedTuple):
    """One system on one kind of query."""

    kind: str
    system: str
    queries: int
    candidates: int
    hit_at_1: float
    ndcg_at_10: float
    bytes_per_item: int | None
    """Of the vectors, in float16; None where there are none."""


def evaluate(model: MetaEmbed, pairs: Sequence[Pair], *, baselines: bool = True) -> list[Row]:
    """Search all candidates with every query at every group, beside BM25 and a single vector.

    A query's own candidate is the one right answer; ties count against the system.
    """
    rows = list(_budget_rows(model, pairs))
    if baselines:
        queries, candidates = [p.query for p in pairs], [p.candidate for p in pairs]
        rows += _rows("BM25", BM25(candidates).scores(queries), pairs, size=None)
        single = SingleVector()
        scores = single.encode(queries) @ single.encode(candidates).T
        rows += _rows("all-MiniLM-L6-v2", scores, pairs, size=2 * single.dim)
    return rows


def _budget_rows(model: MetaEmbed, pairs: Sequence[Pair]) -> Iterator[Row]:
    queries = model.encode_query([pair.query for pair in pairs], convert_to_tensor=True)
    candidates = torch.from_numpy(encode_candidates(model, [pair.candidate for pair in pairs]))
    dim = candidates.shape[-1]
    for group in model.groups:
        scores = maxsim(queries[:, : group.query].float(), candidates[:, : group.candidate])
        yield from _rows(str(group), scores.numpy(), pairs, size=2 * dim * group.candidate)


def _rows(
    system: str, scores: Float[np.ndarray, "Q N"], pairs: Sequence[Pair], *, size: int | None
) -> list[Row]:
    ranks = ranks_of_gold(scores, np.arange(len(pairs)))
    kinds = np.array([pair.kind for pair in pairs])
    return [
        Row(
            kind=str(kind),
            system=system,
            queries=int((kinds == kind).sum()),
            candidates=len(pairs),
            hit_at_1=round(float(hit_from_ranks(ranks[kinds == kind], k=1).mean()), 4),
            ndcg_at_10=round(float(ndcg_from_ranks(ranks[kinds == kind], k=10).mean()), 4),
            bytes_per_item=size,
        )
        for kind in np.unique(kinds)
    ]
