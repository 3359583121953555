"""What a family of backbones can say about itself.

Common to all of them: meta tokens stand behind the item's last real token, and rows are padded on
the right, whatever the tokenizer's own habit. Then an item's positions do not depend on what it is
batched with, also where a backbone counts positions from the row's first token, padding included.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from metaembed.backbones.layouts import Layout
from metaembed.backbones.pictures import Pictures
from metaembed.backbones.processing import Process, run_processor

Attention = Literal["causal", "prefix", "bidirectional", "cross"]
"""What a token sees: those before it; the whole item, and meta tokens before it; all; those before
it, and through layers of their own the picture."""

Fill = int | Literal["last"]
"""What a meta token gets in a processor's output: a constant, or what the item's last token has."""

MODEL_INPUTS: Mapping[str, Fill] = {"token_type_ids": 0, "mm_token_type_ids": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family; `lora_targets` is matched with the whole names of the base model's modules."""

    attention: Attention
    lora_targets: str
    """Regular expression for the linear layers of the language model, not of the vision tower."""
    layout: Layout | None = None
    """How an item is written; None leaves it to the tokenizer or its chat template."""
    placement: Literal["end", "spread"] = "end"
    """Positions of meta tokens: behind the item, or over it, where a backbone has learned a vector
    for each position and attends in both directions (see `metaembed.windows`)."""
    pictures: Pictures = field(default_factory=Pictures)
    per_token: Mapping[str, Fill] = field(default_factory=lambda: MODEL_INPUTS)
    """Processor outputs with one entry a token, beside `input_ids` and `attention_mask`, and what
    they hold at a meta token."""
    process: Process = run_processor
    """Texts and pictures to the backbone's inputs; used with a layout only."""
    prepare: Callable[[Any], None] | None = None
    """Called once with the loaded base model."""
