"""Llama 3.2 Vision: causal among tokens; layers of their own look at the picture.

A picture takes one place among the tokens, and its up to four tiles are read by cross-attention,
so there is no number of visual tokens to limit. It stands first: no token is before it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaembed.backbones.family import MODEL_INPUTS, Family
from metaembed.backbones.layouts import Layout
from metaembed.backbones.processing import run_tokenizer

if TYPE_CHECKING:
    from PIL import Image


def process(
    processor: Any,
    texts: Sequence[str],
    images: "Sequence[Image.Image | None]",
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Do the processor's work, which refuses batches where some items have no picture."""
    features = run_tokenizer(processor.tokenizer, texts)
    rows = [row for row, image in enumerate(images) if image is not None]
    if not rows:
        return features
    shown = processor.image_processor(
        [[image] for image in images if image is not None], return_tensors="pt", **options
    )
    num_tiles = shown.pop("num_tiles")
    for key, values in shown.items():
        features[key] = values.new_zeros(len(texts), *values.shape[1:])
        features[key][rows] = values
    features["aspect_ratio_mask"][:, :, 0] = 1  # as the processor does for a picture not there
    ids = features["input_ids"]
    mask = ids.new_zeros(*ids.shape, *features["aspect_ratio_mask"].shape[1:])  # (B, T, 1, tiles)
    after = (ids == processor.image_token_id).cumsum(dim=1) > 0  # (B, T)
    for row, [tiles] in zip(rows, num_tiles, strict=True):
        mask[row, after[row], :, :tiles] = 1
    return {**features, "cross_attention_mask": mask}


def prepare(model: Any) -> None:
    """Make layers of cross-attention pass on tokens that no picture belongs to as they are.

    They do so by themselves in a batch of text; beside an item with a picture they would let text
    attend to the padding, and its vectors would depend on the batch.
    """
    text_model = model.language_model
    for index in text_model.cross_attention_layers:
        text_model.layers[index].register_forward_hook(
            _keep_tokens_without_picture, with_kwargs=True
        )


def _keep_tokens_without_picture(
    module: Any,  # noqa: ARG001
    inputs: tuple[Any, ...],
    options: Mapping[str, Any],
    output: Any,
) -> Any:
    import torch

    sees = options.get("full_text_row_masked_out_mask")  # (B, 1, T, 1)
    if sees is None:
        return output
    before = inputs[0] if inputs else options["hidden_states"]
    return torch.where(sees[:, 0].bool(), output, before)


FAMILY = Family(
    attention="cross",
    lora_targets=(
        r"language_model\.layers\.\d+\."
        r"(?:(?:self|cross)_attn\.(?:q|k|v|o)_proj|mlp\.(?:gate|up|down)_proj)"
    ),
    layout=Layout(
        query="{image}<|begin_of_text|>Query: {text}",
        candidate="{image}<|begin_of_text|>{text}",
        image="<|image|>",
    ),
    per_token={**MODEL_INPUTS, "cross_attention_mask": "last"},
    process=process,
    prepare=prepare,
)
