"""A small vision-language backbone with random weights: PaliGemma's classes, a layer of SigLIP
and two of Gemma, and a vocabulary of the words that scenes are told in."""

from pathlib import Path

import torch
from scenes import CELL, SIDE, WORDS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

HIDDEN = 64
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")


def make_backbone(folder: Path, *, seed: int) -> Path:
    names = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(models.WordLevel(names, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        model_max_length=512,
    )
    pictures = SiglipImageProcessorPil(
        size={"height": SIDE * CELL, "width": SIDE * CELL},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    pictures.image_seq_length = SIDE * SIDE
    processor = PaliGemmaProcessor(image_processor=pictures, tokenizer=tokenizer)
    config = PaliGemmaConfig(
        text_config={
            "model_type": "gemma",
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": HIDDEN // 4,
            "vocab_size": len(tokenizer),
            "pad_token_id": 0,
            "max_position_embeddings": 512,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": SIDE * CELL,
            "patch_size": CELL,
            "vision_use_head": False,
        },
        projection_dim=HIDDEN,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(seed)
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
