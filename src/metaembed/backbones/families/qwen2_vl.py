"""Qwen2-VL: causal; a visual token is 28 pixels square.

Written as in the paper: the picture first, then the text, and on queries ten `<|endoftext|>`.
"""

from typing import Any

from metaembed.backbones.family import Family
from metaembed.backbones.layouts import Layout
from metaembed.backbones.pictures import Pictures

TARGETS = (
    r"language_model\.layers\.\d+\."
    r"(?:self_attn\.(?:q|k|v|o)_proj|mlp\.(?:gate|up|down)_proj)"
)
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
MIN_VISUAL_TOKENS = 4
MAX_ASPECT = 200
"""The processor refuses a picture whose sides differ by more."""


def limit(processor: Any, max_visual_tokens: int) -> dict[str, Any]:
    """The processor's limits are numbers of pixels, whatever their names say."""
    images = processor.image_processor
    token_pixels = (images.patch_size * images.merge_size) ** 2
    return {
        "size": {
            "shortest_edge": MIN_VISUAL_TOKENS * token_pixels,
            "longest_edge": max_visual_tokens * token_pixels,
        }
    }


FAMILY = Family(
    attention="causal",
    lora_targets=TARGETS,
    layout=Layout(
        query=(
            "<|im_start|>user\n{image}Query: {text}<|im_end|><|endoftext|>"
            f"{10 * '<|endoftext|>'}\n"
        ),
        candidate="<|im_start|>user\n{image}{text}<|im_end|><|endoftext|>",
        image=IMAGE,
    ),
    pictures=Pictures(min_side=28, max_aspect=MAX_ASPECT, limit=limit),
)
