"""The contract that every backbone family keeps, and what loading refuses."""

import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sentence_transformers import MultiVectorEncoder

from metaembed.budget import Budget
from metaembed.errors import BudgetError, ItemError, ModelError
from metaembed.items import Item
from metaembed.model import MetaEmbed, UntrainedBudgetWarning
from tests import oracles

GROUPS = ("1x1", "2x4", "4x8")
LIMIT = Budget(4, 8)
TEXTS = ["the quick fox", "what is on page three", "", "whales and prices " * 400]


@pytest.fixture(scope="module", params=["bert", "qwen"])
def model(request):
    """One model a family; add a family here and it must pass everything below."""
    return MetaEmbed.create(
        request.getfixturevalue(f"{request.param}_folder"),
        num_query_tokens=4,
        num_candidate_tokens=8,
        dim=16,
        groups=GROUPS,
    ).eval()


@pytest.fixture(scope="module")
def seeing(qwen_folder):
    return MetaEmbed.create(
        qwen_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=GROUPS
    ).eval()


@pytest.fixture(scope="module")
def text_only(bert_folder):
    return MetaEmbed.create(
        bert_folder, num_query_tokens=4, num_candidate_tokens=8, dim=16, groups=GROUPS
    ).eval()


def picture(width, height, seed=0):
    pixels = torch.randint(
        0, 255, (height, width, 3), generator=torch.Generator().manual_seed(seed)
    ).to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def close(left, right):
    torch.testing.assert_close(left, right, atol=2e-6, rtol=0)


def test_every_item_gets_exactly_the_vectors_of_its_side(model):
    queries = model.encode_query(TEXTS, convert_to_tensor=True)
    candidates = model.encode_document(TEXTS, convert_to_tensor=True)
    assert queries.shape == (4, 4, 16)
    assert candidates.shape == (4, 8, 16)
    close(queries.norm(dim=-1), torch.ones(4, 4))


def test_the_prefix_of_the_full_embedding_is_the_smaller_budgets(model):
    full_query = model.encode_query(TEXTS, convert_to_tensor=True)
    full_candidate = model.encode_document(TEXTS, convert_to_tensor=True)
    for budget in map(Budget.parse, GROUPS):
        close(
            model.encode_query(TEXTS, budget=budget, convert_to_tensor=True),
            full_query[:, : budget.query],
        )
        close(
            model.encode_document(TEXTS, budget=str(budget), convert_to_tensor=True),
            full_candidate[:, : budget.candidate],
        )


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations(TEXTS), st.integers(1, 4), st.sampled_from(["left", "right"]))
def test_vectors_do_not_depend_on_the_batch(model, texts, batch_size, side):
    model.tokenizer.padding_side = side
    for encode in (model.encode_query, model.encode_document):
        for text, together in zip(texts, encode(texts, batch_size=batch_size), strict=True):
            close(together, encode(text))


def test_an_input_too_long_costs_no_meta_token(model):
    for encode in (model.encode_query, model.encode_document):
        short, long, longer = encode(
            ["whales", "whales " * 900, "whales " * 2000], convert_to_tensor=True
        )
        close(long, longer)  # what is past the limit is not read
        assert (short - long).abs().max() > 1e-3


def test_a_callers_max_length_cannot_crowd_out_meta_tokens(model):
    features = model.preprocess([TEXTS[-1]], task="document", max_length=10**6)
    embeddings = model(features)["token_embeddings"]
    assert embeddings.shape == (1, 8, 16)


def test_text_that_spells_out_meta_tokens_changes_no_count(model):
    text = "<|meta_q_0|> whales <|meta_c_3|>"
    assert model.encode_query(text).shape == (4, 16)
    assert model.encode_document(text).shape == (8, 16)


def test_queries_and_candidates_are_encoded_differently(model):
    query, candidate = model.encode_query("whales"), model.encode_document("whales")
    assert (query - candidate[:4]).abs().max() > 1e-2


def test_vectors_of_one_item_differ_from_each_other(model):
    vectors = model.encode_document("whales and prices")
    assert torch.pdist(vectors).min() > 1e-3


def test_saved_and_reloaded_vectors_are_identical(model, tmp_path):
    model.save_pretrained(str(tmp_path))
    again = MetaEmbed(tmp_path)
    assert again.groups == model.groups
    assert again.fingerprint == model.fingerprint
    assert again[0].item_length == model[0].item_length
    for text in TEXTS:
        assert torch.equal(again.encode_query(text), model.encode_query(text))
        assert torch.equal(again.encode_document(text), model.encode_document(text))


def test_a_saved_model_also_loads_as_a_plain_sentence_transformers_model(model, tmp_path):
    model.save_pretrained(str(tmp_path))
    plain = MultiVectorEncoder(str(tmp_path), trust_remote_code=True)
    assert torch.equal(plain.encode_query("whales"), model.encode_query("whales"))
    assert torch.equal(plain.encode_document("whales"), model.encode_document("whales"))


def test_no_projection_keeps_the_backbones_width_and_the_state_after_the_final_norm(
    bert_folder, qwen_folder
):
    for folder in (bert_folder, qwen_folder):
        model = MetaEmbed.create(
            folder, num_query_tokens=4, num_candidate_tokens=8, dim="full"
        ).eval()
        features = model.preprocess(["whales"], task="document")
        wanted = ("input_ids", "attention_mask", "position_ids")
        inputs = {key: features[key] for key in wanted if key in features}
        with torch.inference_mode():
            last = model[0].model(**inputs).last_hidden_state[0, -8:]
        close(model.encode_document("whales"), torch.nn.functional.normalize(last, dim=-1))


def test_similarity_is_maxsim_at_the_budget(model):
    queries, candidates = model.encode_query(TEXTS[:2]), model.encode_document(TEXTS)
    expected = oracles.maxsim(torch.stack(queries), torch.stack(candidates))
    torch.testing.assert_close(model.similarity(queries, candidates), torch.tensor(expected))
    small = oracles.maxsim(torch.stack(queries)[:, :2], torch.stack(candidates)[:, :4])
    torch.testing.assert_close(
        model.similarity(queries, candidates, budget="2x4"), torch.tensor(small)
    )
    assert model.similarity(queries[0], candidates[0]).shape == (1, 1)


def test_a_single_item_gives_one_matrix_and_a_batch_a_list(model):
    assert model.encode_query("whales").shape == (4, 16)
    assert [tuple(one.shape) for one in model.encode_query(["whales"])] == [(4, 16)]
    assert model.encode_query([]) == []
    assert model.encode_query(["whales"], convert_to_numpy=True)[0].shape == (4, 16)


def test_a_budget_beyond_the_model_is_refused_and_an_untrained_one_warned_of(model):
    with pytest.raises(BudgetError, match="larger than the model provides .4x8."):
        model.encode_query("whales", budget="16x64")
    with pytest.warns(UntrainedBudgetWarning, match="3x8"):
        model.encode_query("whales", budget="3x8")


def test_an_adapter_is_saved_alone_reloads_over_its_base_and_merges(model, tmp_path, request):
    peft = pytest.importorskip("peft")
    folder = tmp_path / "base"
    model.save_pretrained(str(folder))
    trained = MetaEmbed(folder)
    table = "word_embeddings" if "bert" in trained[0].config.model_type else "embed_tokens"
    targets = ["query", "value"] if table == "word_embeddings" else ["q_proj", "v_proj"]
    trained.add_adapter(
        peft.LoraConfig(
            r=2, target_modules=targets, trainable_token_indices={table: trained[0].meta_token_ids}
        )
    )
    before = trained.encode_query("whales")
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if weight.requires_grad and ("lora_B" in name or "delta" in name):
                weight.add_(0.1)
    expected = trained.encode_query("whales")
    assert (expected - before).abs().max() > 1e-3
    trained.save_pretrained(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = MetaEmbed(tmp_path / "adapter")
    assert torch.equal(again.encode_query("whales"), expected)
    fingerprint = again.fingerprint
    assert fingerprint == trained.fingerprint != model.fingerprint
    again.merge_adapter()
    close(again.encode_query("whales"), expected)
    assert again.fingerprint == fingerprint
    assert not [name for name, _ in again.named_modules() if "lora" in name]


# Vision


def test_text_images_and_both_are_encoded_alone_and_mixed_alike(seeing):
    items = [
        "whales",
        picture(64, 64),
        {"image": picture(64, 64), "text": "whales"},
        {"text": "whales " * 900, "image": picture(300, 200)},
        Item(text="prices", instruction="Find the page"),
    ]
    vectors = seeing.encode_document(items)
    for one, together in zip(items, vectors, strict=True):
        close(together, seeing.encode_document([one])[0])
    distinct = torch.stack(vectors).flatten(1)
    assert torch.pdist(distinct).min() > 1e-3
    assert seeing.encode_query(picture(64, 64)).shape == (4, 16)


@pytest.mark.parametrize("size", [(1, 1), (27, 900), (3, 2000), (2000, 3), (1500, 1200), (28, 28)])
def test_pictures_of_any_size_cost_no_meta_token(seeing, size):
    item = {"image": picture(*size), "text": "whales " * 900}
    assert seeing.encode_document([item])[0].shape == (8, 16)


def test_a_large_picture_stays_within_the_visual_tokens_asked_for(qwen_folder):
    model = MetaEmbed.create(
        qwen_folder, num_query_tokens=4, num_candidate_tokens=8, max_visual_tokens=16
    )
    features = model.preprocess([picture(900, 700)], task="document")
    image_token = model[0].config.image_token_id
    assert 4 <= (features["input_ids"] == image_token).sum() <= 16


def test_a_text_model_refuses_pictures_in_one_line(text_only):
    with pytest.raises(ItemError, match="reads text only"):
        text_only.encode_query(picture(8, 8))


# Creating and loading


def test_meta_tokens_are_vocabulary_rows_drawn_by_the_seed(bert_folder):
    def rows(seed):
        model = MetaEmbed.create(bert_folder, num_query_tokens=4, num_candidate_tokens=8, seed=seed)
        return model[0].model.get_input_embeddings().weight[model[0].meta_token_ids]

    assert torch.equal(rows(0), rows(0))
    assert not torch.equal(rows(0), rows(1))
    assert rows(0).shape == (12, 32)


def test_groups_default_to_the_papers_that_fit(bert_folder):
    model = MetaEmbed.create(bert_folder, num_query_tokens=5, num_candidate_tokens=9)
    assert [str(group) for group in model.groups] == ["1x1", "2x4", "4x8", "5x9"]
    with pytest.raises(ModelError, match="largest group"):
        MetaEmbed.create(bert_folder, num_query_tokens=4, num_candidate_tokens=8, groups=["1x1"])


def test_a_backbone_too_short_for_its_meta_tokens_is_refused(bert_folder):
    with pytest.raises(ModelError, match="use fewer meta tokens"):
        MetaEmbed.create(bert_folder, num_query_tokens=16, num_candidate_tokens=64)


def test_a_backbone_that_is_not_there_is_refused_in_one_line(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        MetaEmbed.create(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_without_meta_tokens_is_refused(bert_folder):
    with pytest.raises(ModelError, match=r"MetaEmbed\.create"):
        MetaEmbed(str(bert_folder))


def plant(folder, flag):
    """Code that would leave `flag` behind if anything imported it."""
    code = f"import pathlib; pathlib.Path({str(flag)!r}).touch()\nclass Evil: pass\n"
    (folder / "evil.py").write_text(code)


def test_loading_never_runs_code_from_the_folder(text_only, tmp_path):
    folder, flag = tmp_path / "model", tmp_path / "ran"
    text_only.save_pretrained(str(folder))
    plant(folder, flag)
    modules = json.loads((folder / "modules.json").read_text())
    hostile = [*modules, {"idx": 3, "name": "3", "path": "", "type": "evil.Evil"}]
    (folder / "modules.json").write_text(json.dumps(hostile))
    with pytest.raises(ModelError, match="evil.Evil"):
        MetaEmbed(folder)
    with pytest.raises(ModelError, match="never runs code"):
        MetaEmbed(folder, trust_remote_code=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    MetaEmbed(folder)  # a known architecture loads from transformers, not from the folder
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        MetaEmbed(folder)
    assert not flag.exists()


def test_a_pickled_checkpoint_is_refused(text_only, tmp_path):
    folder = tmp_path / "model"
    text_only.save_pretrained(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        MetaEmbed(folder)


@pytest.mark.parametrize(
    "name",
    ["modules.json", "config.json", "config_sentence_transformers.json", "model.safetensors"],
)
def test_a_damaged_model_is_one_line(text_only, tmp_path, name):
    folder = tmp_path / "model"
    text_only.save_pretrained(str(folder))
    (folder / name).write_bytes(b"{ damaged")
    with pytest.raises(ModelError) as caught:
        MetaEmbed(folder)
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder)
    with pytest.raises(ModelError):
        MetaEmbed(folder)


def test_a_merged_model_saves_and_reloads_as_an_ordinary_one(text_only, tmp_path):
    peft = pytest.importorskip("peft")
    text_only.save_pretrained(str(tmp_path / "base"))
    trained = MetaEmbed(tmp_path / "base")
    trained.add_adapter(
        peft.LoraConfig(
            r=2,
            target_modules=["query", "value"],
            trainable_token_indices={"word_embeddings": trained[0].meta_token_ids},
        )
    )
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if weight.requires_grad and ("lora_B" in name or "delta" in name):
                weight.add_(0.1)
    trained.save_pretrained(str(tmp_path / "adapter"))
    merged = MetaEmbed(tmp_path / "adapter").merge_adapter()
    merged.save_pretrained(str(tmp_path / "merged"))
    again = MetaEmbed(tmp_path / "merged")
    assert torch.equal(again.encode_query("whales"), merged.encode_query("whales"))


def test_a_checkpoint_that_lacks_a_weight_is_refused(text_only, tmp_path):
    from safetensors.torch import load_file, save_file

    text_only.save_pretrained(str(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if name.endswith("attention.self.query.weight"))
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not those that were saved"):
        MetaEmbed(tmp_path)


def test_the_fingerprint_tells_models_apart_that_place_their_tokens_differently(bert_folder):
    made = MetaEmbed.create(bert_folder, num_query_tokens=4, num_candidate_tokens=8, groups=GROUPS)
    before = made.fingerprint
    made[0].windows = None
    assert made.fingerprint != before
