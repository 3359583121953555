"""Columns of all processes, with the gradients that belong to them.

Every process computes the loss of its own queries against everyone's candidates. The gradient of a
gathered vector is the sum over processes of what their losses say of it; data-parallel training
then divides the sum over processes by their number, which gives the gradient of the mean over all
queries, as one process with the whole batch has it. The only file of the package that knows of
other processes.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from metaembed.errors import RecipeError
from metaembed.loss.columns import Column, Marks


def is_alone() -> bool:
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def gathered(columns: Sequence[Column]) -> tuple[list[Column], int]:
    """The columns of all processes one after the other, and the row at which one's own begin.

    The first column is the queries'; of it only the marks are gathered. Raises `RecipeError`, on
    all processes, if their columns are not alike.
    """
    _require_alike(columns)
    query, *candidates = columns
    everyones = [Column(gather(column.vectors), _marks(column)) for column in candidates]
    offset = dist.get_rank() * len(query.vectors)
    return [Column(query.vectors, _marks(query)), *everyones], offset


def _marks(column: Column) -> Marks:
    return Marks(*(None if mark is None else gather(mark) for mark in column.marks))


def gather(tensor: Tensor) -> Tensor:
    """Tensors of all processes, one after the other; differentiable."""
    # torch.distributed.nn.functional.all_gather gives wrong gradients on gloo, without a word,
    # when the incoming gradient is not contiguous (pytorch #192920).
    import torch.distributed._functional_collectives as collectives

    call: Any = getattr(collectives, "all_gather_single_autograd", None)
    if call is None:  # its name in earlier versions
        call = collectives.all_gather_tensor_autograd
    is_mask = tensor.dtype == torch.bool
    sent = (tensor.to(torch.uint8) if is_mask else tensor).contiguous()
    received: Tensor = collectives.wait_tensor(call(sent, 0, dist.group.WORLD))
    return received.bool() if is_mask else received


def _require_alike(columns: Sequence[Column]) -> None:
    """Compare shapes first: a gathering of unequal ones may hang or mix rows up."""
    bits = [mark is not None for column in columns for mark in column.marks]
    kinds = sum(2**place for place, bit in enumerate(bits) if bit)
    mine = torch.tensor([len(columns[0].vectors), len(columns), kinds])
    all_of_them = gather(mine.to(columns[0].vectors.device)).view(-1, len(mine)).tolist()
    sizes = [rows for rows, *_ in all_of_them]
    if len(set(sizes)) > 1:
        raise RecipeError(
            f"The processes have batches of {', '.join(map(str, sizes))} rows, but gathering needs "
            "equal ones; drop the last, smaller batch (dataloader_drop_last) or set gather='none'."
        )
    if any(others != all_of_them[0] for others in all_of_them):
        raise RecipeError(
            "The processes have batches with different columns, keys or marks of absence, but "
            "gathering needs equal ones; give every source the same, or set gather='none'."
        )
