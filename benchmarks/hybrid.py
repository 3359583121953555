"""Does a lexical ranking beside the embedding's find more? Known items, by budget.

python benchmarks/hybrid.py [--cache build/bench/hybrid] [--out benchmarks/results/hybrid.json]

The queries of the held-out known-item set (see `metaembed eval`) are ranked by metaembed-mini, by
the BM25 of the index's texts, and by both, fused by reciprocal rank. The constant and the weight
of the fusion are chosen on one half of the queries; every figure of `rows` is of the other half.
"""

import argparse
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from provenance import provenance
from rich.progress import track

from metaembed.budget import Budget
from metaembed.data.mining import Pair

DEPTH = 100
"""Items of each ranking that are fused."""
STANDARD = (60.0, 1.0)
KS = (2.0, 5.0, 10.0, 20.0, 60.0)
WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Of the lexical ranking; the embedding's is 1."""
ROUNDS = 2000
"""Of the bootstrap."""

Rankings = list[list[int]]


class Vectors(NamedTuple):
    queries: np.ndarray
    """(Q, R_q, dim), float32."""
    candidates: np.ndarray
    """(C, R_c, dim), float16 as an index stores them."""


def encoded(pairs: Sequence[Pair], cache: Path) -> Vectors:
    """Read the vectors of these pairs, or make them: a few minutes on one core."""
    from metaembed.data.split import stable_hash
    from metaembed.encode import encode_candidates
    from metaembed.models import load_model

    model = load_model("metaembed-mini")
    name = stable_hash(f"{model.fingerprint} {pairs}").hex()[:16]
    path = cache / f"{name}.npz"
    if not path.exists():
        queries = model.encode_query([pair.query for pair in pairs], convert_to_tensor=True)
        candidates = encode_candidates(model, [pair.candidate for pair in pairs])
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, queries=queries.float().numpy(), candidates=np.float16(candidates))
        part.replace(path)
    with np.load(path) as arrays:
        return Vectors(arrays["queries"], arrays["candidates"])


def embedding_rankings(vectors: Vectors, budget: Budget) -> Rankings:
    """Exact, equal scores in the order of the candidates."""
    import torch

    from metaembed.scoring import maxsim

    queries = torch.from_numpy(vectors.queries[:, : budget.query])
    candidates = torch.from_numpy(vectors.candidates[:, : budget.candidate])
    scores = maxsim(queries, candidates).numpy()  # (Q, C)
    rankings: Rankings = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH].tolist()
    return rankings


def lexical_rankings(pairs: Sequence[Pair]) -> Rankings:
    """By the table of texts that an index has."""
    from metaembed.index.database import Database
    from metaembed.index.texts import Texts

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.sqlite"
        Database.create(path, ["PRAGMA user_version = 2"])
        database = Database(path, format_versions=[2])
        texts = Texts(database, name="hybrid")
        with database.writing():
            texts.add((place, pair.candidate) for place, pair in enumerate(pairs))
        with database.reading():
            found = [texts.rank(pair.query, limit=DEPTH).sequences.tolist() for pair in pairs]
        database.close()
    return found


def fused(embedding: Rankings, lexical: Rankings, *, k: float, weight: float) -> Rankings:
    from metaembed.index.fusion import reciprocal_rank_fusion

    return [
        [item for item, _ in reciprocal_rank_fusion(both, k=k, weights=(1.0, weight))]
        for both in zip(embedding, lexical, strict=True)
    ]


def ranks_of_own(rankings: Iterable[Sequence[int]]) -> np.ndarray:
    """The rank of each query's own candidate, which has its number; DEPTH + 1 where it is not."""
    return np.array(
        [
            ranking.index(own) + 1 if own in ranking[:DEPTH] else DEPTH + 1
            for own, ranking in enumerate(rankings)
        ]
    )


class Queries(NamedTuple):
    """Whose figures are taken together."""

    kinds: np.ndarray
    is_for_choosing: np.ndarray

    def ndcg(self, ranks: np.ndarray) -> float:
        """The mean of the kinds, over the half that is for choosing."""
        values = gains(ranks)
        chosen = [self.is_for_choosing & (self.kinds == kind) for kind in np.unique(self.kinds)]
        return float(np.mean([values[some].mean() for some in chosen]))


def gains(ranks: np.ndarray) -> np.ndarray:
    from metaembed.evaluation.metrics import ndcg_from_ranks

    return ndcg_from_ranks(ranks, k=10)


def halves(pairs: Sequence[Pair]) -> Queries:
    from metaembed.data.split import stable_hash

    chosen = [stable_hash(f"hybrid {pair.query}")[0] % 2 == 0 for pair in pairs]
    return Queries(np.array([pair.kind for pair in pairs]), np.array(chosen))


def rows(queries: Queries, budget: str, systems: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each kind and system; `gain` is over the better of the first two."""
    made = []
    for kind in np.unique(queries.kinds).tolist():
        some = ~queries.is_for_choosing & (queries.kinds == kind)
        alone = max((gains(ranks[some]) for ranks in list(systems.values())[:2]), key=np.mean)
        for system, ranks in systems.items():
            ndcg = gains(ranks[some])
            row = {"budget": budget, "kind": kind, "system": system, "queries": int(some.sum())}
            row["hit_at_1"] = round(float((ranks[some] == 1).mean()), 4)
            row["ndcg_at_10"] = round(float(ndcg.mean()), 4)
            if system.startswith("fused"):
                row["gain"] = round(float((ndcg - alone).mean()), 4)
                row["gain_95"] = interval(ndcg - alone)
            made.append(row)
    return made


def interval(differences: np.ndarray) -> list[float]:
    """The middle 95 % of bootstrapped means."""
    drawn = np.random.default_rng(0).choice(differences, (ROUNDS, len(differences)))
    low, high = np.quantile(drawn.mean(axis=1), [0.025, 0.975]).tolist()
    return [round(low, 4), round(high, 4)]


def measure(pairs: Sequence[Pair], vectors: Vectors, budgets: Sequence[Budget]) -> dict[str, Any]:
    queries = halves(pairs)
    lexical = lexical_rankings(pairs)
    embedding = {
        str(budget): embedding_rankings(vectors, budget)
        for budget in track(budgets, description="budgets")
    }
    grid: dict[tuple[float, float], float] = {}
    for k, weight in track(list(itertools.product(KS, WEIGHTS)), description="fusions"):
        found = [
            queries.ndcg(ranks_of_own(fused(rankings, lexical, k=k, weight=weight)))
            for rankings in embedding.values()
        ]
        grid[k, weight] = round(float(np.mean(found)), 4)
    best = max(grid, key=grid.__getitem__)
    made = []
    for budget, rankings in embedding.items():
        systems = {"embedding": ranks_of_own(rankings), "lexical": ranks_of_own(lexical)}
        for name, (k, weight) in {"fused": STANDARD, "fused as chosen": best}.items():
            systems[name] = ranks_of_own(fused(rankings, lexical, k=k, weight=weight))
        made += rows(queries, budget, systems)
    return {
        "queries": len(pairs),
        "queries_for_choosing": int(queries.is_for_choosing.sum()),
        "candidates": len(pairs),
        "depth": DEPTH,
        "fused": {"k": STANDARD[0], "weight": STANDARD[1]},
        "fused as chosen": {"k": best[0], "weight": best[1]},
        "grid": [{"k": k, "weight": w, "ndcg_at_10": value} for (k, w), value in grid.items()],
        "rows": made,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("build/bench/hybrid"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hybrid.json"))
    arguments = parser.parse_args()

    from metaembed.data.pairs import held_out_pairs
    from metaembed.models import load_model

    made_with = provenance(synthetic=False)
    made_with["versions"]["sqlite"] = sqlite3.sqlite_version
    pairs = list(held_out_pairs())
    result = measure(pairs, encoded(pairs, arguments.cache), load_model("metaembed-mini").groups)
    packages = sorted({pair.package for pair in pairs})
    written = {"model": "metaembed-mini", **result, "packages": packages, "provenance": made_with}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
