"""Encoding long streams of items in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from metaembed.budget import Budget
from metaembed.model import MetaEmbed

T = TypeVar("T")


def encode_candidates(
    model: MetaEmbed,
    items: Sequence[Any],
    *,
    budget: Budget | None = None,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """Encode candidates in bulk: `(N, r_c, dim)` float32 on the CPU.

    Runs in bfloat16 where the processor multiplies it natively, which about halves the time (the
    vectors then differ from float32's by about 1e-2 in angle); queries stay in float32.
    """
    if not items:
        return np.empty((0, (budget or model.limit).candidate, 0), dtype=np.float32)
    with bulk_precision(model):
        vectors = model.encode_document(items, budget=budget, batch_size=batch_size)
    return torch.stack([one.float().cpu() for one in vectors]).numpy()


def bulk_precision(model: MetaEmbed) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where that is faster, and do nothing elsewhere."""
    device = model.device.type
    if device == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    if device == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of `size`, the last one shorter."""
    stream = iter(values)
    while chunk := list(islice(stream, size)):
        yield chunk
