"""MaxSim against hand-worked numbers and a three-loop oracle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.scoring import maxsim
from tests import oracles


def embeddings(items, vectors, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(
        torch.randn(items, vectors, dim, generator=generator), dim=-1
    )


def test_each_query_vector_contributes_its_best_match():
    query = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    candidate = torch.tensor([[[0.5, 0.0], [0.0, 0.25]]])
    assert maxsim(query, candidate).tolist() == [[0.75]]  # 0.5 + 0.25


def test_a_best_match_may_be_negative():
    query = torch.tensor([[[1.0, 0.0]]])
    candidate = torch.tensor([[[-0.5, 0.0], [-0.25, 0.0]]])
    assert maxsim(query, candidate).tolist() == [[-0.25]]


@settings(deadline=None)
@given(
    *[st.integers(1, 5)] * 5,
    st.integers(0, 1000),
    st.one_of(st.none(), st.integers(1, 200)),
)
def test_agrees_with_the_oracle_whatever_the_block(Q, C, r_q, r_c, dim, seed, block):
    queries, candidates = embeddings(Q, r_q, dim, seed), embeddings(C, r_c, dim, seed + 1)
    scores = maxsim(queries, candidates, max_block_elements=block)
    torch.testing.assert_close(scores, torch.tensor(oracles.maxsim(queries, candidates)))


def test_candidate_order_only_reorders_scores():
    queries, candidates = embeddings(3, 4, 8, 0), embeddings(7, 8, 8, 1)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(
        maxsim(queries, candidates[order]), maxsim(queries, candidates)[:, order]
    )


@pytest.mark.parametrize(("Q", "C"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_score_gives_an_empty_matrix(Q, C):
    assert maxsim(torch.empty(Q, 2, 4), torch.empty(C, 2, 4)).shape == (Q, C)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_vectors_score_in_float32(dtype):
    queries, candidates = embeddings(2, 16, 8, 0).to(dtype), embeddings(3, 64, 8, 1).to(dtype)
    scores = maxsim(queries, candidates)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, torch.tensor(oracles.maxsim(queries, candidates)))


def test_vectors_that_are_slices_of_larger_ones_score_as_copies_do():
    queries, candidates = embeddings(2, 16, 8, 0), embeddings(3, 64, 8, 1)
    sliced = maxsim(queries[:, :4], candidates[:, :8])
    torch.testing.assert_close(sliced, maxsim(queries[:, :4].clone(), candidates[:, :8].clone()))


def test_no_temporary_is_larger_than_the_bound():
    limit, largest = 4096, 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out._base is None:
                largest = max(largest, out.numel())
            return out

    queries, candidates = embeddings(20, 4, 16, 0), embeddings(200, 8, 16, 1)
    with Watch():
        scores = maxsim(queries, candidates, max_block_elements=limit)
    assert scores.numel() == 4000  # the result itself is below the bound here
    assert 0 < largest <= limit
