"""Scores of all groups from one pass over the similarities, in bounded memory.

Groups are nested, so the best match within a prefix is the better one of the last prefix's best
match and the best of what the group adds: all groups together read every similarity once, as the
largest alone would. Only the places of the best matches are kept for the backward pass.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaembed.budget import Budget
from metaembed.scoring import MAX_BLOCK_ELEMENTS


def prefix_scores(
    queries: Float[Tensor, "B R_q dim"],
    candidates: Float[Tensor, "C R_c dim"] | Float[Tensor, "B C R_c dim"],
    *,
    groups: Sequence[Budget],
    max_block_elements: int | None = None,
) -> Float[Tensor, "G B C"]:
    """Score every query against every candidate, or against its own ones, at every group.

    The scores are those of `maxsim`: sums in float32 (float64 of float64 vectors), whatever the
    input. No temporary of the forward or backward pass holds more than `max_block_elements`
    numbers (default `MAX_BLOCK_ELEMENTS`), short of one query. Where vectors tie for the best
    match, the first one gets the gradient. `groups` are nested; raises `BudgetError` if the last
    one is larger than the embeddings.
    """
    limit = groups[-1]
    limit.require_fits(Budget(queries.shape[1], candidates.shape[-2]), of="these embeddings")
    queries, candidates = queries[:, : limit.query], candidates[..., : limit.candidate, :]
    row = max(1, limit.query * candidates.shape[-3] * limit.candidate)
    block = max(1, (max_block_elements or MAX_BLOCK_ELEMENTS) // row)
    scores: Tensor = _PrefixScores.apply(queries, candidates, tuple(groups), block)
    return scores


def best_matches(
    similarities: Float[Tensor, "B R_q C R_c"], groups: Sequence[Budget]
) -> Iterator[tuple[Float[Tensor, "B r_q C"], Int[Tensor, "B r_q C"]]]:
    """For each group the similarity and the number of every query vector's best match."""
    best = similarities.new_full((), float("-inf"))
    index = torch.zeros((), dtype=torch.int64, device=similarities.device)
    start = 0
    for group in groups:
        if group.candidate > start:
            added, place = similarities[..., start : group.candidate].max(dim=-1)  # (B, R_q, C)
            index = torch.where(added > best, place + start, index)
            best = torch.maximum(best, added)  # unlike a comparison, it lets no NaN get lost
            start = group.candidate
        yield best[:, : group.query], index[:, : group.query]


def similarities_of(
    queries: Float[Tensor, "B R_q dim"],
    candidates: Float[Tensor, "C R_c dim"] | Float[Tensor, "B C R_c dim"],
) -> Float[Tensor, "B R_q C R_c"]:
    B, R_q, dim = queries.shape
    C, R_c, _ = candidates.shape[-3:]
    if candidates.ndim == 3:
        products = queries.reshape(B * R_q, dim) @ candidates.reshape(C * R_c, dim).T
    else:
        products = queries @ candidates.reshape(B, C * R_c, dim).mT
    return products.view(B, R_q, C, R_c)


class _PrefixScores(torch.autograd.Function):
    """`prefix_scores` in blocks of queries, of which the backward pass keeps no similarities."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, candidates: Tensor, groups: tuple[Budget, ...], block: int
    ) -> Tensor:
        ctx.groups, ctx.block = groups, block
        places, scores = [], []
        with torch.autocast(queries.device.type, enabled=False):
            own, others = _widened(queries), _widened(candidates)
            for rows in _blocks(len(queries), block):
                some = others if others.ndim == 3 else others[rows]
                found = list(best_matches(similarities_of(own[rows], some), groups))
                scores.append(torch.stack([best.sum(dim=1) for best, _ in found]))  # (G, b, C)
                places += [index.to(torch.int32) for _, index in found]
        ctx.save_for_backward(queries, candidates, *places)
        if not scores:
            return own.new_zeros((len(groups), 0, candidates.shape[-3]))
        return torch.cat(scores, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        queries, candidates, *places = ctx.saved_tensors
        with torch.autocast(queries.device.type, enabled=False):
            own, others = _widened(queries), _widened(candidates)
            of_queries, of_candidates = own.new_zeros(own.shape), others.new_zeros(others.shape)
            for rows in _blocks(len(queries), ctx.block):
                indices, places = places[: len(ctx.groups)], places[len(ctx.groups) :]
                spread = _spread(gradients[0][:, rows], indices, ctx.groups, others.shape[-2])
                b, R_q, C, R_c = spread.shape
                if others.ndim == 3:
                    flat = spread.view(b * R_q, C * R_c)
                    of_queries[rows] = (flat @ others.reshape(C * R_c, -1)).view(b, R_q, -1)
                    of_candidates.view(C * R_c, -1).addmm_(flat.T, own[rows].reshape(b * R_q, -1))
                else:
                    flat = spread.view(b, R_q, C * R_c)
                    of_queries[rows] = flat @ others[rows].reshape(b, C * R_c, -1)
                    of_candidates[rows] = (flat.mT @ own[rows]).view(b, C, R_c, -1)
        return of_queries.to(queries.dtype), of_candidates.to(candidates.dtype), None, None


def _spread(
    gradients: Float[Tensor, "G b C"],
    indices: Sequence[Int[Tensor, "b r_q C"]],
    groups: Sequence[Budget],
    num_vectors: int,
) -> Float[Tensor, "b R_q C R_c"]:
    """The gradient of the similarities: that of each score, at the matches that it sums."""
    _, b, C = gradients.shape
    spread = gradients.new_zeros((b, groups[-1].query, C, num_vectors))
    for group, gradient, index in zip(groups, gradients, indices, strict=True):
        values = gradient[:, None, :, None].expand(b, group.query, C, 1)
        spread[:, : group.query].scatter_add_(3, index.long().unsqueeze(-1), values)
    return spread


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _widened(vectors: Tensor) -> Tensor:
    """At least float32, since sums of half-precision similarities tie."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))
