"""Meta tokens as rows of a backbone's vocabulary."""

from collections.abc import Sequence
from typing import Any

import torch


def meta_token_names(side: str, count: int) -> list[str]:
    """
    >>> meta_token_names("q", 2)
    ['<|meta_q_0|>', '<|meta_q_1|>']
    """
    return [f"<|meta_{side}_{number}|>" for number in range(count)]


def add_meta_tokens(model: Any, tokenizer: Any, names: Sequence[str], *, seed: int) -> None:
    """Give every meta token a vocabulary row, unless it has one.

    New rows are drawn around the mean of the table with its spread per dimension: in the range
    that the backbone knows, without a meaning of their own.
    """
    known = tokenizer.get_vocab()
    missing = [name for name in names if name not in known]
    if not missing:
        return
    table = model.get_input_embeddings().weight.detach()
    mean, spread = table.float().mean(dim=0), table.float().std(dim=0)
    tokenizer.add_tokens(missing, special_tokens=True)
    grow_table(model, len(tokenizer))
    weight = model.get_input_embeddings().weight
    noise = torch.randn(
        len(missing), weight.shape[1], generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():
        ids = torch.tensor(tokenizer.convert_tokens_to_ids(missing), device=weight.device)
        weight[ids] = (mean + noise.to(weight.device) * spread).to(weight.dtype)


def grow_table(model: Any, rows: int) -> None:
    """Make the embedding table at least `rows` long; some are longer than their tokenizers."""
    before = model.get_input_embeddings().weight.shape[0]
    if rows <= before:
        return
    config = model.config.get_text_config()
    spare = before - config.vocab_size  # rows that a family adds to its configured number
    model.resize_token_embeddings(rows, mean_resizing=False)
    config.vocab_size = rows - spare
