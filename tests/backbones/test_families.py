"""What single families say: their prompts, word for word, and how entries are found."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

from metaembed.backbones import Layout, Pictures, family_names, family_of
from metaembed.errors import ModelError
from metaembed.items import Item

PICTURE = Image.new("RGB", (64, 64), "red")
SYSTEM = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n"
VISION = "<|vision_start|>{}<|vision_end|>"
AUGMENTED = "<|im_end|>" + 11 * "<|endoftext|>" + "\n"
QWEN = {
    "query": "<|im_start|>user\nQuery: whales" + AUGMENTED,
    "candidate": "<|im_start|>user\nwhales<|im_end|><|endoftext|>",
    "instructed": "<|im_start|>user\nQuery: Find it\nwhales" + AUGMENTED,
    "picture": f"<|im_start|>user\n{VISION}Describe the image.<|im_end|><|endoftext|>",
    "both": f"<|im_start|>user\n{VISION}whales<|im_end|><|endoftext|>",
}
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
DEFAULT = SYSTEM.format("Represent the user's input.")
WRITTEN = {
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": {
        "query": f"{DEFAULT}whales{ASSISTANT}",
        "candidate": f"{DEFAULT}whales{ASSISTANT}",
        "instructed": f"{SYSTEM.format('Find it')}whales{ASSISTANT}",
        "picture": f"{DEFAULT}{VISION}{ASSISTANT}",
        "both": f"{DEFAULT}{VISION}whales{ASSISTANT}",
    },
    "paligemma": {
        "query": "<bos>Query: whales\n",
        "candidate": "<bos>whales\n",
        "instructed": "<bos>Query: Find it\nwhales\n",
        "picture": "{}<bos>Describe the image.\n",
        "both": "{}<bos>whales\n",
    },
    "mllama": {
        "query": "<|begin_of_text|>Query: whales",
        "candidate": "<|begin_of_text|>whales",
        "instructed": "<|begin_of_text|>Query: Find it\nwhales",
        "picture": "{}<|begin_of_text|>Describe the image.",
        "both": "{}<|begin_of_text|>whales",
    },
}


@pytest.mark.parametrize("name", WRITTEN)
def test_items_are_read_as_their_family_writes_them(name, create):
    model = create(name)
    token = model[0].processor.image_token
    items = {
        "query": "whales",
        "candidate": "whales",
        "instructed": Item(text="whales", instruction="Find it"),
        "picture": PICTURE,
        "both": {"text": "whales", "image": PICTURE},
    }
    for kind, item in items.items():
        task = "query" if kind in ("query", "instructed") else "document"
        features = model.preprocess([item], task=task)
        count = 4 if task == "query" else 12
        ids = features["input_ids"][0]
        assert ids[-count:].tolist() == model[0].meta_token_ids[:count]
        visual = int((ids == model[0].model.config.image_token_id).sum())
        assert model.tokenizer.decode(ids[:-count]) == WRITTEN[name][kind].format(visual * token)


def test_tiles_of_a_page_are_written_with_their_places(create):
    model = create("modernvbert")
    [ids] = model.preprocess([Image.new("RGB", (90, 40))], task="document")["input_ids"]
    text = model.tokenizer.decode(ids[:-12])
    assert text.startswith("[CLS]User:<fake_token_around_image><row_1_col_1><image><image>")
    assert "<global-img>" in text
    assert text.endswith("Describe the image.<end_of_utterance>\nAssistant:[SEP]")


def test_a_layout_of_ones_own_is_used_and_saved(create, tmp_path):
    from metaembed.model import MetaEmbed

    layout = {"query": "Q {image}{text}", "candidate": "{image}{text}", "image": "<|image_pad|>"}
    model = create("qwen2_vl", layout=layout)
    model.save_pretrained(str(tmp_path))
    [ids] = MetaEmbed(tmp_path).preprocess(["whales"], task="query")["input_ids"]
    assert model.tokenizer.decode(ids[:-4]) == "Q whales"


def test_a_prompt_stands_before_the_text_or_is_the_instruction(create):
    for name, expected in (
        ("qwen2_vl", "<|im_start|>user\nFind: whales<|im_end|><|endoftext|>"),
        ("qwen3_vl", f"{SYSTEM.format('Find: ')}whales{ASSISTANT}"),
    ):
        model = create(name)
        [ids] = model.preprocess(["whales"], prompt="Find: ", task="document")["input_ids"]
        assert model.tokenizer.decode(ids[:-12]) == expected


def test_a_layout_without_a_place_for_text_or_picture_is_refused():
    with pytest.raises(ModelError, match=r"must have the fields \{image\} and \{text\}"):
        Layout(query="{text}", candidate="{image}{text}", image="<image>")


def test_braces_in_a_text_stay_as_they_are():
    layout = Layout(query="{image}{text}", candidate="{image}{text}", image="<image>")
    assert layout.write(Item(text="{text} {image} {0}"), is_query=True) == "{text} {image} {0}"


def test_meta_tokens_continue_what_the_processor_says_of_each_token(create):
    paligemma = create("paligemma").preprocess(["whales", "a longer text"], task="document")
    for types, mask in zip(
        paligemma["token_type_ids"], paligemma["attention_mask"].sum(dim=1), strict=True
    ):
        assert types[mask - 12 : mask].tolist() == [1] * 12
        assert types.sum() == 12
    small, large = Image.new("RGB", (20, 20)), Image.new("RGB", (90, 20))
    items = ["whales", small, {"text": "a longer text", "image": large}]
    mllama = create("mllama").preprocess(items, task="document")
    sees = mllama["cross_attention_mask"]  # (B, T, 1, 4)
    lengths = mllama["attention_mask"].sum(dim=1)
    assert sees[0].sum() == 0
    for row, tiles in ((1, 1), (2, 4)):
        assert torch.equal(
            sees[row, : lengths[row], 0].sum(dim=1), torch.full((int(lengths[row]),), tiles)
        )
        assert sees[row, lengths[row] :].sum() == 0


def test_a_table_with_spare_rows_keeps_them_when_it_grows(create):
    model = create("mllama")[0].model
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows == model.config.text_config.vocab_size + 8
    assert rows >= model.config.image_token_id + 1 + 12


def test_a_strip_is_padded_to_what_the_processor_takes():
    pictures = Pictures(min_side=28, max_aspect=200)
    assert pictures.fit(Image.new("RGB", (28, 30))).size == (28, 30)
    assert pictures.fit(Image.new("RGB", (3, 5))).size == (28, 28)
    assert pictures.fit(Image.new("RGB", (19900, 3))).size == (19900, 100)
    assert pictures.fit(Image.new("RGB", (2800, 30)), 50).size == (2800, 56)
    assert Pictures().fit(Image.new("RGB", (1, 3000))).size == (1, 3000)


# Entries


def test_entries_are_found_by_type_and_others_are_read_by_default():
    assert family_of("qwen2_5_vl") is family_of("qwen2_vl")
    assert family_of("paligemma").attention == "prefix"
    for unknown in ("smollm", "family", "__init__", "../bert", "os"):
        assert family_of(unknown) is family_of("default")
    assert [name for name in family_names() if family_of(name).placement == "spread"] == ["bert"]


def test_looking_up_a_family_loads_neither_torch_nor_transformers():
    code = (
        "import sys; from metaembed.backbones import family_names, family_of;"
        "[family_of(name) for name in [*family_names(), 'other']];"
        "heavy = {'torch', 'transformers', 'PIL'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_default_targets_leave_out_the_vision_tower():
    import re

    targets = re.compile(family_of("default").lora_targets)
    assert targets.fullmatch("model.language_model.layers.0.self_attn.q_proj")
    assert targets.fullmatch("encoder.layer.0.attention.self.query")
    assert not targets.fullmatch("vision_tower.layers.0.self_attn.q_proj")
    assert not targets.fullmatch("pooler.dense")
