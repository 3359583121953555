"""ModernVBERT: a small encoder of pages and text, all tokens see each other; fast enough on a CPU.

Pictures are cut into square tiles, with a small version of the whole behind them.
"""

import math
from typing import Any

from metaembed.backbones.family import Family
from metaembed.backbones.layouts import Layout
from metaembed.backbones.pictures import Pictures, require_room


def limit(processor: Any, max_visual_tokens: int) -> dict[str, Any]:
    """Allow as many tiles a side as fit when the picture is square."""
    require_room(processor.image_seq_len, max_visual_tokens)
    images = processor.image_processor
    tile = images.max_image_size["longest_edge"]
    side = max(1, math.isqrt(max_visual_tokens // processor.image_seq_len - 1))
    return {"size": {"longest_edge": min(side * tile, images.size["longest_edge"])}}


FAMILY = Family(
    attention="bidirectional",
    lora_targets=r"text_model\.layers\.\d+\.(?:attn\.(?:Wqkv|Wo)|mlp\.(?:Wi|Wo))",
    layout=Layout(
        query="[CLS]User:{image}Query: {text}<end_of_utterance>\nAssistant:[SEP]",
        candidate="[CLS]User:{image}{text}<end_of_utterance>\nAssistant:[SEP]",
        image="<image>",
    ),
    pictures=Pictures(limit=limit),
)
