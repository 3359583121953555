"""How large a picture may be, and which ones a processor does not take as they are."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaembed.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image


def unlimited(processor: Any, max_visual_tokens: int) -> dict[str, Any]:  # noqa: ARG001
    """Leave pictures as the processor makes them by itself."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """What a family asks of pictures."""

    min_side: int = 1
    """Shortest side in pixels."""
    max_aspect: float | None = None
    """The longest side is less than this many times the shortest."""
    limit: Callable[[Any, int], dict[str, Any]] = unlimited
    """Options of the image processor that keep a picture within so many visual tokens."""

    def fit(self, image: "Image.Image", max_visual_tokens: int | None = None) -> "Image.Image":
        """Pad a picture with white where its sides are too short or too unequal."""
        shortest = self.min_side
        if self.max_aspect is not None:
            # One row of tokens is the least, so a longer strip would exceed the limit.
            aspect = min(self.max_aspect - 1, max_visual_tokens or math.inf)
            shortest = max(shortest, math.ceil(max(image.size) / aspect))
        if min(image.size) >= shortest:
            return image
        from PIL import Image

        size = max(image.width, shortest), max(image.height, shortest)
        canvas = Image.new("RGB", size, "white")
        canvas.paste(image, (0, 0))
        return canvas


def require_room(tokens: int, max_visual_tokens: int) -> None:
    """Refuse a limit below what the smallest picture costs."""
    if tokens > max_visual_tokens:
        raise ModelError(
            f"This backbone turns the smallest picture into {tokens} visual tokens, and "
            f"{max_visual_tokens} are allowed; use a checkpoint for smaller pictures, or allow "
            f"max_visual_tokens={tokens}."
        )
