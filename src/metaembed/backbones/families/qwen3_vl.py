"""Qwen3-VL, and Qwen3-VL-Embedding, which is of the same type: causal, visual tokens of 32 pixels.

Written as Qwen3-VL-Embedding was trained: the instruction in the system turn, for either side.
"""

from metaembed.backbones.families.qwen2_vl import IMAGE, MAX_ASPECT, TARGETS, limit
from metaembed.backbones.family import Family
from metaembed.backbones.layouts import Layout
from metaembed.backbones.pictures import Pictures

TURNS = (
    "<|im_start|>system\n{instruction}<|im_end|>\n"
    "<|im_start|>user\n{image}{text}<|im_end|>\n"
    "<|im_start|>assistant\n"
)

FAMILY = Family(
    attention="causal",
    lora_targets=TARGETS,
    layout=Layout(
        query=TURNS,
        candidate=TURNS,
        image=IMAGE,
        image_text="",
        instruction="Represent the user's input.",
    ),
    pictures=Pictures(min_side=32, max_aspect=MAX_ASPECT, limit=limit),
)
