"""What a user could take instead, each behind the same two calls, outside the timing and inside it.

`prepare` brings the candidates into the form that the peer likes best; `search` is timed; `read`
turns what it returned into scores and positions. A peer gets what makes it fastest: its own type,
its own memory layout, the best of several block sizes, and a segment for each core.
"""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from corpus import Corpus
from rounds import seconds

from metaembed.budget import Budget
from metaembed.kernels import Best
from metaembed.storage import StorageType

BLOCK_SIMILARITIES = (2**18, 2**20, 2**22, 2**24, 2**27)
"""How many similarities a hand-written search may hold at once; the fastest is taken."""
QDRANT_BATCH_NUMBERS = 2**21
"""Numbers in one upsert."""


class Peer(Protocol):
    def tune(self, queries: np.ndarray) -> None:
        """Choose what is fastest for queries of this shape. Not timed."""

    def search(self, queries: np.ndarray, k: int) -> Any: ...

    def read(self, found: Any) -> Best: ...

    def close(self) -> None: ...


class Scored:
    """A function from queries and a block size to all scores (Q, N), and the best of them."""

    def __init__(
        self,
        scores: Callable[[np.ndarray, int], Any],
        best: Callable[[Any, int], Best],
        blocks: Sequence[int],
    ) -> None:
        self._scores, self._best, self._blocks = scores, best, blocks
        self._block = blocks[0]

    def tune(self, queries: np.ndarray) -> None:
        if len(self._blocks) > 1:
            self._scores(queries[:1], self._blocks[0])  # the first call of all is slow
            taken = {block: self._least(queries, block) for block in self._blocks}
            self._block = min(taken, key=taken.__getitem__)

    def search(self, queries: np.ndarray, k: int) -> Best:
        return self._best(self._scores(queries, self._block), k)

    def read(self, found: Best) -> Best:
        return found

    def close(self) -> None:
        del self._scores

    def _least(self, queries: np.ndarray, block: int) -> float:
        taken = seconds(lambda: self._scores(queries, block))
        for _ in range(2 if taken < 0.5 else 0):
            taken = min(taken, seconds(lambda: self._scores(queries, block)))
        return taken


class QdrantEdge:
    """Exact multi-vector search of a shard with float32 vectors, without HNSW."""

    def __init__(self, corpus: Corpus, dtype: StorageType) -> None:
        import qdrant_edge as edge

        self._edge = edge
        self._folder = tempfile.TemporaryDirectory(prefix="qdrant-edge-")
        vectors = corpus.whole[dtype].codes
        # Edge searches a segment with one thread and merges them up to the size given here.
        threads = torch.get_num_threads()
        kilobytes = max(1, int(1.2 * vectors.nbytes / threads / 1024))
        self._shard = edge.EdgeShard.create(self._folder.name, self._config(corpus.dim, kilobytes))
        for positions in np.array_split(np.arange(len(vectors)), threads):
            self._insert(positions, vectors)
            self._shard.optimize()
        self._shard.flush()

    def tune(self, queries: np.ndarray) -> None:
        pass

    def search(self, queries: np.ndarray, k: int) -> list[list[Any]]:
        requests = [self._request(query, k) for query in queries]
        if len(requests) == 1:
            return [self._shard.query(requests[0])]
        return self._shard.query_batch(self._edge.QueryBatchRequest(requests))

    def read(self, found: list[list[Any]]) -> Best:
        scores = [[point.score for point in points] for points in found]
        positions = [[point.id for point in points] for points in found]
        return Best(np.array(scores, np.float32), np.array(positions))

    def close(self) -> None:
        self._shard.close()
        self._folder.cleanup()

    def _config(self, dim: int, segment_kilobytes: int) -> Any:
        edge = self._edge
        vectors = edge.EdgeVectorParams(
            size=dim,
            distance=edge.Distance.Dot,
            multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
            datatype=edge.VectorStorageDatatype.Float32,
            hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10**9),
        )
        optimizers = edge.EdgeOptimizersConfig(
            default_segment_number=torch.get_num_threads(), max_segment_size=segment_kilobytes
        )
        return edge.EdgeConfig(vectors=vectors, optimizers=optimizers, wal_enabled=False)

    def _insert(self, positions: np.ndarray, vectors: np.ndarray) -> None:
        size = max(1, QDRANT_BATCH_NUMBERS // vectors[0].size)
        for start in range(0, len(positions), size):
            some = positions[start : start + size].tolist()
            points = [self._edge.Point(position, vectors[position]) for position in some]
            self._shard.update(self._edge.UpdateOperation.upsert_points(points))

    def _request(self, query: np.ndarray, k: int) -> Any:
        return self._edge.QueryRequest(
            limit=k,
            query=self._edge.Query.Nearest(query),
            params=self._edge.SearchParams(exact=True),
            with_payload=False,
            with_vector=False,
        )


def torch_best(scores: torch.Tensor, k: int) -> Best:
    best = scores.topk(min(k, scores.shape[1]))
    return Best(best.values.float().numpy(), best.indices.numpy())


def numpy_best(scores: np.ndarray, k: int) -> Best:
    some = np.argpartition(scores, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, some, 1), axis=1)
    positions = np.take_along_axis(some, order, 1)
    return Best(np.take_along_axis(scores, positions, 1), positions)


def tensor(corpus: Corpus, dtype: StorageType) -> torch.Tensor:
    """The candidates (N, r_c, dim), without a copy."""
    codes = corpus.whole[dtype].codes
    if dtype == "bfloat16":
        return torch.from_numpy(codes.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(codes)


def block_items(block: int, queries: np.ndarray, candidates: Any) -> int:
    """How many items give `block` similarities."""
    return max(1, block // (queries.shape[0] * queries.shape[1] * candidates.shape[1]))


def torch_rows(corpus: Corpus, dtype: StorageType) -> Scored:
    """matmul, amax and sum, the candidates' vectors as the rows of the product."""
    candidates = tensor(corpus, dtype)

    def scores(queries: np.ndarray, block: int) -> torch.Tensor:
        Q, r_q, dim = queries.shape
        flat = torch.from_numpy(queries).to(candidates.dtype).view(Q * r_q, dim).T
        found = []
        for some in candidates.split(block_items(block, queries, candidates)):
            similarities = some.reshape(-1, dim) @ flat  # (n r_c, Q r_q)
            best = similarities.view(*some.shape[:2], Q * r_q).amax(dim=1)
            found.append(best.view(-1, Q, r_q).sum(dim=2, dtype=torch.float32))
        return torch.cat(found).T.contiguous()

    return Scored(scores, torch_best, BLOCK_SIMILARITIES)


def torch_columns(corpus: Corpus, dtype: StorageType) -> Scored:
    """As `torch_rows`, the candidates' vectors as the columns of the product."""
    candidates = tensor(corpus, dtype)

    def scores(queries: np.ndarray, block: int) -> torch.Tensor:
        Q, r_q, dim = queries.shape
        flat = torch.from_numpy(queries).to(candidates.dtype).view(Q * r_q, dim)
        found = []
        for some in candidates.split(block_items(block, queries, candidates)):
            similarities = flat @ some.reshape(-1, dim).T  # (Q r_q, n r_c)
            best = similarities.view(Q, r_q, *some.shape[:2]).amax(dim=3)
            found.append(best.sum(dim=1, dtype=torch.float32))
        return torch.cat(found, dim=1)

    return Scored(scores, torch_best, BLOCK_SIMILARITIES)


def torch_product(corpus: Corpus, dtype: StorageType) -> Scored:
    """A plain matrix product, of one vector an item."""
    candidates = tensor(corpus, dtype)[:, 0]

    def scores(queries: np.ndarray, block: int) -> torch.Tensor:
        del block
        return torch.from_numpy(queries[:, 0]).to(candidates.dtype) @ candidates.T

    return Scored(scores, torch_best, [0])


def numpy_product(corpus: Corpus, dtype: StorageType) -> Scored:
    candidates = corpus.whole[dtype].codes[:, 0]
    return Scored(lambda queries, _: queries[:, 0] @ candidates.T, numpy_best, [0])


def numpy_maxsim(corpus: Corpus, dtype: StorageType) -> Scored:
    candidates = corpus.whole[dtype].codes

    def scores(queries: np.ndarray, block: int) -> np.ndarray:
        Q, r_q, dim = queries.shape
        flat = queries.reshape(Q * r_q, dim).T
        size = block_items(block, queries, candidates)
        found = []
        for start in range(0, len(candidates), size):
            some = candidates[start : start + size]
            similarities = some.reshape(-1, dim) @ flat  # (n r_c, Q r_q)
            best = similarities.reshape(*some.shape[:2], Q * r_q).max(axis=1)
            found.append(best.reshape(-1, Q, r_q).sum(axis=2))
        return np.ascontiguousarray(np.concatenate(found).T)

    return Scored(scores, numpy_best, BLOCK_SIMILARITIES)


def sentence_transformers_maxsim(corpus: Corpus, dtype: StorageType) -> Scored:
    """`sentence_transformers.util.maxsim`, which chooses its own block size."""
    from sentence_transformers.util import maxsim

    candidates = tensor(corpus, dtype)

    def scores(queries: np.ndarray, block: int) -> torch.Tensor:
        del block
        return maxsim(torch.from_numpy(queries).to(candidates.dtype), candidates)

    return Scored(scores, torch_best, [0])


def maxsim_cpu_scores(corpus: Corpus, dtype: StorageType) -> Scored:
    """`maxsim_cpu.maxsim_scores`, which takes one query at a time."""
    import maxsim_cpu

    candidates = corpus.whole[dtype].codes

    def scores(queries: np.ndarray, block: int) -> np.ndarray:
        del block
        return np.stack([maxsim_cpu.maxsim_scores(query, candidates) for query in queries])

    return Scored(scores, numpy_best, [0])


class Kind(NamedTuple):
    """One of the peers."""

    dtype: StorageType
    """Of the array that it shares with the others."""
    prepare: Callable[[Corpus, StorageType], Peer]


PEERS: dict[str, Kind] = {
    "torch bf16, rows": Kind("bfloat16", torch_rows),
    "torch bf16, columns": Kind("bfloat16", torch_columns),
    "torch f32, rows": Kind("float32", torch_rows),
    "torch f32, columns": Kind("float32", torch_columns),
    "numpy f32": Kind("float32", numpy_maxsim),
    "maxsim-cpu f32": Kind("float32", maxsim_cpu_scores),
    "sentence-transformers f32": Kind("float32", sentence_transformers_maxsim),
    "sentence-transformers bf16": Kind("bfloat16", sentence_transformers_maxsim),
    "Qdrant Edge f32": Kind("float32", QdrantEdge),
}
PRODUCTS: dict[str, Kind] = {
    "matrix product, torch bf16": Kind("bfloat16", torch_product),
    "matrix product, numpy f32": Kind("float32", numpy_product),
}
"""At 1x1 alone."""


def kinds(names: Sequence[str], budget: Budget) -> dict[str, Kind]:
    """The peers of these names; at 1x1 also the products of a type that is there anyway."""
    chosen = {name: PEERS[name] for name in names}
    if budget == Budget(1, 1):
        types = {kind.dtype for kind in chosen.values()}
        chosen |= {name: kind for name, kind in PRODUCTS.items() if kind.dtype in types}
    return chosen
