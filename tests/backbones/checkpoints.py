"""Tiny checkpoints of vision families: real classes, random weights, processors built offline."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.tiny import byte_pairs, make_bert, make_qwen, roughen

HIDDEN = 32
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def save(model, processor, folder: Path) -> Path:
    roughen(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_qwen2_vl(folder: Path) -> Path:
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLImageProcessor,
        Qwen2VLModel,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = byte_pairs(folder, QWEN_TOKENS, eos="<|im_end|>", pad="<|endoftext|>")
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer) + 9, "rope_parameters": MROPE},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": HIDDEN,
            "num_heads": 4,
            "mlp_ratio": 2,
        },
        **qwen_ids(tokenizer),
    )
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
    )
    return save(Qwen2VLModel(config), processor, folder)


def make_qwen3_vl(folder: Path) -> Path:
    import torch
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = byte_pairs(folder, QWEN_TOKENS, eos="<|im_end|>", pad="<|endoftext|>")
    torch.manual_seed(0)
    config = Qwen3VLConfig(
        text_config={
            **TEXT,
            "head_dim": 8,
            "vocab_size": len(tokenizer) + 9,
            "rope_parameters": MROPE,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        **qwen_ids(tokenizer),
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
    )
    return save(Qwen3VLForConditionalGeneration(config), processor, folder)


QWEN_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


def qwen_ids(tokenizer):
    token = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }


def make_paligemma(folder: Path) -> Path:
    import torch
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    tokenizer = byte_pairs(
        folder, ["<pad>", "<eos>", "<bos>", "<unk>"], bos="<bos>", eos="<eos>", pad="<pad>"
    )
    images = SiglipImageProcessor(
        size={"height": 56, "width": 56}, image_seq_length=16, image_mean=[0.5] * 3
    )
    processor = PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)
    torch.manual_seed(0)
    config = PaliGemmaConfig(  # its own hidden_size stays 2048: PaliGemma 2 has such a mismatch
        text_config={
            **TEXT,
            "model_type": "gemma",
            "head_dim": 8,
            "vocab_size": len(tokenizer) + 5,
            "pad_token_id": 0,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
        },
        projection_dim=HIDDEN,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return save(PaliGemmaForConditionalGeneration(config), processor, folder)


def make_mllama(folder: Path) -> Path:
    import torch
    from transformers import (
        MllamaConfig,
        MllamaForConditionalGeneration,
        MllamaImageProcessor,
        MllamaProcessor,
    )

    begin, pad, image = "<|begin_of_text|>", "<|finetune_right_pad_id|>", "<|image|>"
    tokens = [begin, "<|end_of_text|>", pad, "<|python_tag|>"]
    tokenizer = byte_pairs(folder, tokens, bos=begin, eos="<|end_of_text|>", pad=pad)
    vocabulary = len(tokenizer)
    tokenizer.add_tokens([image], special_tokens=True)  # past the configured number, as published
    torch.manual_seed(0)
    config = MllamaConfig(
        text_config={
            **TEXT,
            "num_hidden_layers": 4,
            "cross_attention_layers": [1, 3],
            "vocab_size": vocabulary,
            "pad_token_id": 2,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 4,
            "image_size": 28,
            "patch_size": 14,
            "intermediate_layers_indices": [0, 1],
            "vision_output_dim": 96,
        },
        image_token_index=vocabulary,
    )
    processor = MllamaProcessor(
        image_processor=MllamaImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
    )
    return save(MllamaForConditionalGeneration(config), processor, folder)


def make_modernvbert(folder: Path) -> Path:
    import torch
    from transformers import (
        Idefics3ImageProcessor,
        Idefics3Processor,
        ModernVBertConfig,
        ModernVBertForMaskedLM,
    )

    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = byte_pairs(
        folder,
        ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "<global-img>", *tiles],
        cls="[CLS]",
        sep="[SEP]",
        pad="[PAD]",
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessor(
            size={"longest_edge": 4 * 32}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
    )
    torch.manual_seed(0)
    config = ModernVBertConfig(
        text_config={
            "model_type": "modernbert",
            "vocab_size": len(tokenizer) + 3,
            "hidden_size": HIDDEN,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 1024,
            "pad_token_id": 3,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "initializer_range": 0.2,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        },
        pixel_shuffle_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return save(ModernVBertForMaskedLM(config), processor, folder)


class Checkpoint(NamedTuple):
    make: Callable[[Path], Path]
    layers: str = "language_model.layers."
    """Where the language model's layers are among the base model's modules."""
    final_norm: str | None = "language_model.norm"


CHECKPOINTS = {
    "bert": Checkpoint(make_bert, layers="encoder.layer.", final_norm=None),
    "qwen2_vl": Checkpoint(make_qwen2_vl),
    "qwen2_5_vl": Checkpoint(make_qwen),
    "qwen3_vl": Checkpoint(make_qwen3_vl),
    "paligemma": Checkpoint(make_paligemma),
    "mllama": Checkpoint(make_mllama),
    "modernvbert": Checkpoint(
        make_modernvbert, layers="text_model.layers.", final_norm="text_model.final_norm"
    ),
}
