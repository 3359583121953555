"""PaliGemma: the item's tokens all see each other, what follows sees only what is before it.

The token type says which is which: 0 in the item, 1 at meta tokens. So every meta token sees the
whole item and the meta tokens before it, and a prefix does not depend on the rest.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaembed.backbones.families.qwen2_vl import TARGETS
from metaembed.backbones.family import MODEL_INPUTS, Family
from metaembed.backbones.layouts import Layout
from metaembed.backbones.pictures import Pictures, require_room
from metaembed.backbones.processing import run_tokenizer

if TYPE_CHECKING:
    from PIL import Image


def limit(processor: Any, max_visual_tokens: int) -> dict[str, Any]:
    """Every picture is made the checkpoint's square; only a checkpoint for smaller ones differs."""
    require_room(processor.image_seq_length, max_visual_tokens)
    return {}


def process(
    processor: Any,
    texts: Sequence[str],
    images: "Sequence[Image.Image | None]",
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Do the processor's work, which refuses items without a picture."""
    import torch

    picture = processor.image_token * processor.image_seq_length
    features = run_tokenizer(
        processor.tokenizer, [text.replace(processor.image_token, picture) for text in texts]
    )
    features["token_type_ids"] = torch.zeros_like(features["input_ids"])
    shown = [image for image in images if image is not None]
    if shown:
        features |= processor.image_processor(shown, return_tensors="pt", **options)
    return features


FAMILY = Family(
    attention="prefix",
    lora_targets=TARGETS,
    layout=Layout(
        query="{image}<bos>Query: {text}\n", candidate="{image}<bos>{text}\n", image="<image>"
    ),
    pictures=Pictures(limit=limit),
    per_token={**MODEL_INPUTS, "token_type_ids": 1},
    process=process,
)
