"""Qwen2.5-VL, the paper's 3B, 7B and 32B: read as Qwen2-VL is."""

from metaembed.backbones.families.qwen2_vl import FAMILY

__all__ = ["FAMILY"]
