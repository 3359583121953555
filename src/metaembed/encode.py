"""Encoding many candidates at once, as fast as the machine allows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from metaembed.budget import Budget
from metaembed.model import MetaEmbed

SHORT = 1024
"""Tokens up to which unfused attention, quadratic in memory, is no burden."""


def encode_candidates(
    model: MetaEmbed,
    items: Sequence[Any],
    *,
    budget: Budget | None = None,
    batch_size: int = 32,
) -> Float[np.ndarray, "N r_c dim"]:
    """Encode candidates in bulk, float32 on the CPU.

    Runs in bfloat16 where the processor multiplies it natively; the vectors then differ from
    float32's by about a hundredth. Queries are few and stay in float32.
    """
    if not items:
        return np.empty((0, (budget or model.limit).candidate, 0), dtype=np.float32)
    with bulk_precision(model):
        vectors = model.encode_document(items, budget=budget, batch_size=batch_size)
    return torch.stack([one.float().cpu() for one in vectors]).numpy()


@contextmanager
def bulk_precision(model: MetaEmbed) -> Iterator[None]:
    """Compute in bfloat16 where that is faster, and change nothing elsewhere."""
    device = model.device.type
    if device == "cuda" and torch.cuda.is_bf16_supported():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            yield
    elif device == "cpu" and torch.cpu._is_avx512_bf16_supported():
        with _short_attention(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield
    else:
        yield


@contextmanager
def _short_attention(model: MetaEmbed) -> Iterator[None]:
    """Use unfused attention for short items: on a CPU, with padding and in bfloat16, torch's fused
    kernel takes several times as long."""
    backbone = model[0].model
    before = backbone.config._attn_implementation
    if model[0].item_length > SHORT or before != "sdpa":
        yield
        return
    backbone.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)
