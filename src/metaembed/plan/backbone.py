"""The size of a backbone, by its configuration: built without weights on torch's meta device."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metaembed.backbones import family_of, resolve_backbone
from metaembed.errors import ModelError

KNOWN: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (
        "qwen2_5_vl",
        {
            "text_config": {
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
                "vocab_size": 151936,
            },
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "out_hidden_size": 2048,
                "num_heads": 16,
            },
        },
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": (
        "qwen2_5_vl",
        {
            "text_config": {
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "vocab_size": 152064,
            },
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "out_hidden_size": 3584,
                "num_heads": 16,
            },
        },
    ),
    "Qwen/Qwen2.5-VL-32B-Instruct": (
        "qwen2_5_vl",
        {
            "text_config": {
                "hidden_size": 5120,
                "intermediate_size": 27648,
                "num_hidden_layers": 64,
                "num_attention_heads": 40,
                "num_key_value_heads": 8,
                "vocab_size": 152064,
            },
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3456,
                "out_hidden_size": 5120,
                "num_heads": 16,
            },
        },
    ),
    "google/paligemma-3b-pt-224": (
        "paligemma",
        {
            "text_config": {
                "model_type": "gemma",
                "hidden_size": 2048,
                "intermediate_size": 16384,
                "num_hidden_layers": 18,
                "num_attention_heads": 8,
                "num_key_value_heads": 1,
                "head_dim": 256,
                "vocab_size": 257216,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "patch_size": 14,
                "image_size": 224,
                "vision_use_head": False,
            },
            "projection_dim": 2048,
        },
    ),
    "meta-llama/Llama-3.2-11B-Vision": (
        "mllama",
        {
            "text_config": {
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 40,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "vocab_size": 128256,
                "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
            },
            "vision_config": {
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_hidden_layers": 32,
                "num_global_layers": 8,
                "attention_heads": 16,
                "image_size": 448,
                "patch_size": 14,
                "max_num_tiles": 4,
                "intermediate_layers_indices": [3, 7, 15, 23, 30],
                "vision_output_dim": 7680,
            },
        },
    ),
}
"""Configurations of the paper's backbones, so that a plan needs no network. Their parameters come
to what the checkpoints have (3,754,622,976 for 3B; Llama's to 0.3 % less)."""


class Size(NamedTuple):
    """Of a backbone."""

    language: int
    """Parameters that every token goes through: all but the vision tower and the vocabulary."""
    vision: int
    vocabulary: int
    hidden: int
    layers: int
    feed_forward: int
    """Width of a layer's inner product."""
    key_value: int
    """Width of keys, and of values."""
    adapters: int
    """Numbers that a LoRA of rank 1 adds on the family's targets."""
    is_known: bool
    """Of `KNOWN`, rather than from a configuration file."""

    @property
    def parameters(self) -> int:
        return self.language + self.vision + self.vocabulary


def backbone_size(name: str, *, targets: tuple[str, ...] | None = None) -> Size:
    """Measure a backbone: one of `KNOWN`, or a folder or hub id with a `config.json`.

    `targets` are the recipe's LoRA targets; by default the family's. Raises `ModelError`.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    is_known = name in KNOWN and not Path(name).exists()
    try:
        if is_known:
            model_type, fields = KNOWN[name]
            config = AutoConfig.for_model(model_type, **fields)
        else:
            config = AutoConfig.from_pretrained(resolve_backbone(name))
        with torch.device("meta"):
            model = AutoModel.from_config(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The size of backbone {name!r} is not known: {error}") from None
    text = config.get_text_config()
    table = model.get_input_embeddings().weight
    vision = sum(
        weight.numel() for part, weight in model.named_parameters() if re.match(_VISION, part)
    )
    whole = sum(weight.numel() for weight in model.parameters())
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Size(
        language=whole - vision - table.numel(),
        vision=vision,
        vocabulary=table.numel(),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        feed_forward=text.intermediate_size,
        key_value=width * (getattr(text, "num_key_value_heads", None) or heads),
        adapters=_adapters(model, config.model_type, targets),
        is_known=is_known,
    )


_VISION = r"(model\.)?(visual|vision_tower|vision_model|vision)\b"


def _adapters(model: Any, model_type: str, targets: tuple[str, ...] | None) -> int:
    from torch import nn

    pattern = family_of(model_type).lora_targets
    found = 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or "pooler" in name:
            continue
        last = name.rpartition(".")[2]
        if (last in targets) if targets is not None else re.fullmatch(pattern, name):
            found += module.in_features + module.out_features
    return found
