"""What one of two processes does for `test_processes.py`; results come back as files."""

from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from metaembed.errors import RecipeError
from metaembed.loss import MMRLoss
from metaembed.loss.processes import gather
from tests.losses.batches import ROWS, features, gradients, tiny_model

HALF = len(ROWS) // 2
STEPS = 3


def work(rank, model_folder, out):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=(out / "meeting").as_uri(),
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    rows = slice(rank * HALF, (rank + 1) * HALF)
    results = {"gather": gathering(rank)}
    for name, settings in CASES.items():
        model = tiny_model(model_folder).double()
        module = DistributedDataParallel(model)
        loss = MMRLoss(module, groups=model.groups, **settings)
        loss(features(model, rows)).backward()
        results[name] = gradients(module)
    for kind in (DistributedDataParallel, sharded):
        for name in ("positives", "cached"):
            model = tiny_model(model_folder).double()
            module = kind(model)
            loss = MMRLoss(module, groups=model.groups, **CASES[name])
            trained(module, loss, features(model, rows))
            results[f"{kind.__name__} {name}"] = weights(module)
    (out / f"error {rank}").write_text(unequal(model_folder, rank))
    if rank == 0:
        for name, tensors in results.items():
            save_file(tensors, out / f"{name}.safetensors")
    dist.destroy_process_group()


CASES = {
    "positives": {"gather": "positives", "temperature": 0.5},
    "all": {"gather": "all", "temperature": 0.5},
    "cached": {"gather": "positives", "temperature": 0.5, "mini_batch_size": 3},
    "cached all": {"gather": "all", "temperature": 0.5, "mini_batch_size": 3},
}


def gathering(rank):
    """The gradient of a gathered tensor whose own gradient comes transposed."""
    generator = torch.Generator().manual_seed(rank)
    mine = torch.randn(3, 4, generator=generator).requires_grad_()
    weight = torch.randn(4, 6, generator=generator)
    everyones = gather(mine)
    (everyones.T * weight).sum().backward()  # the incoming gradient is weight.T, not contiguous
    assert not weight.T.is_contiguous()
    return {"everyones": everyones.detach().contiguous(), "gradient": mine.grad, "weight": weight}


def sharded(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for layer in model[0].model.encoder.layer:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def trained(module, loss, columns):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(columns).backward()
        optimizer.step()


def weights(module):
    return {
        name.removeprefix("module."): whole(parameter.detach())
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def whole(parameter):
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).clone()


def unequal(model_folder, rank):
    model = tiny_model(model_folder)
    loss = MMRLoss(model, gather="positives")
    try:
        loss(features(model, slice(0, 2 + rank)))
    except RecipeError as error:
        return str(error)
    return "no error"
