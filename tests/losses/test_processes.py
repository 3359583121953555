"""One process with the whole batch against two with half of it each, over gloo."""

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from metaembed.loss import MMRLoss
from tests.losses.batches import features, gradients, largest_difference, tiny_model
from tests.losses.processes import CASES, trained, weights, work


@pytest.fixture(scope="module")
def of_two(bert_folder, tmp_path_factory):
    """The folder with what the two processes found."""
    out = tmp_path_factory.mktemp("processes")
    mp.spawn(work, args=(bert_folder, out), nprocs=2)
    return out


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(of_two, bert_folder, name):
    model = tiny_model(bert_folder).double()
    settings = {key: value for key, value in CASES[name].items() if key != "mini_batch_size"}
    MMRLoss(model, **settings)(features(model)).backward()
    found = load_file(of_two / f"{name}.safetensors")
    assert largest_difference(found, gradients(model)) < 1e-12


@pytest.mark.parametrize("kind", ["DistributedDataParallel", "sharded"])
@pytest.mark.parametrize("name", ["positives", "cached"])
def test_steps_of_two_processes_lead_where_those_of_one_do(of_two, bert_folder, kind, name):
    model = tiny_model(bert_folder).double()
    before = weights(model)
    trained(model, MMRLoss(model, gather="positives", temperature=0.5), features(model))
    found = load_file(of_two / f"{kind} {name}.safetensors")
    assert largest_difference(before, weights(model)) > 1e-3
    assert largest_difference(found, weights(model)) < 1e-12


def test_a_gathered_tensor_gets_everyones_gradient_even_if_it_comes_transposed(of_two):
    found = load_file(of_two / "gather.safetensors")
    ones = [torch.Generator().manual_seed(rank) for rank in range(2)]
    parts = [torch.randn(3, 4, generator=generator) for generator in ones]
    torch.testing.assert_close(found["everyones"], torch.cat(parts))
    both = sum(torch.randn(4, 6, generator=generator) for generator in ones)
    torch.testing.assert_close(found["gradient"], both.T[:3])


def test_unequal_batches_are_refused_in_every_process(of_two):
    for rank in range(2):
        message = (of_two / f"error {rank}").read_text()
        assert "batches of 2, 3 rows" in message
        assert "dataloader_drop_last" in message
