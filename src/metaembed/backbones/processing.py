"""From written items and pictures to what a backbone reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

Process = Callable[
    [Any, Sequence[str], "Sequence[Image.Image | None]", Mapping[str, Any]], dict[str, Any]
]
"""Takes the processor, texts, the picture of each or None, and options of the image processor."""


def run_tokenizer(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Tokenize texts that are written out: layouts hold the special tokens themselves."""
    encoded = tokenizer(
        list(texts), padding=True, add_special_tokens=False, return_tensors="pt", verbose=False
    )
    return dict(encoded)


def run_processor(
    processor: Any,
    texts: Sequence[str],
    images: "Sequence[Image.Image | None]",
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Call a processor as transformers means it to be called."""
    shown = [image for image in images if image is not None]
    if not shown:
        return run_tokenizer(getattr(processor, "tokenizer", processor), texts)
    encoded = processor(
        text=list(texts),
        images=shown,
        text_kwargs={"padding": True, "add_special_tokens": False, "verbose": False},
        images_kwargs=dict(options),
        common_kwargs={"return_tensors": "pt"},
    )
    return dict(encoded)
