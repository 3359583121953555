"""What every family keeps, through the real classes of transformers and a real processor."""

import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy, normalize

from metaembed.backbones import family_names, family_of
from metaembed.budget import Budget
from metaembed.errors import ModelError
from metaembed.items import Item
from metaembed.model import MetaEmbed
from metaembed.scoring import maxsim
from tests.backbones.checkpoints import CHECKPOINTS
from tests.backbones.conftest import GROUPS

SEEING = [name for name in CHECKPOINTS if name != "bert"]
NESTED = [name for name in CHECKPOINTS if family_of(name).attention != "bidirectional"]
VISUAL_TOKENS = 64


@pytest.fixture(scope="module", params=CHECKPOINTS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, create):
    return create(name)


@pytest.fixture(scope="module", params=SEEING)
def seeing(request, create):
    return create(request.param)


def picture(width, height, seed=0):
    pixels = torch.randint(
        0, 255, (height, width, 3), generator=torch.Generator().manual_seed(seed)
    ).to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def items_for(model):
    texts = ["whales", "", "what is on page three " * 400, "prices of whales"]
    if not any("image" in modality for modality in model[0].modalities):
        return texts
    return [
        *texts,
        picture(64, 64),
        {"text": "whales", "image": picture(64, 64)},
        {"text": "whales " * 900, "image": picture(300, 200, seed=1)},
        Item(text="prices", instruction="Find the page"),
    ]


def close(left, right, atol=3e-6):
    torch.testing.assert_close(left, right, atol=atol, rtol=0)


def model_inputs(model, features):
    return model[0]._model_inputs({k: v for k, v in features.items() if k != "modality"})


def test_every_family_has_a_tiny_checkpoint_here():
    assert set(CHECKPOINTS) == set(family_names())


def test_vectors_have_their_sides_number_and_length_one(model):
    items = items_for(model)
    queries = model.encode_query(items, convert_to_tensor=True)
    candidates = model.encode_document(items, convert_to_tensor=True)
    assert queries.shape == (len(items), 4, 16)
    assert candidates.shape == (len(items), 8, 16)
    close(queries.norm(dim=-1), torch.ones(len(items), 4))
    assert torch.pdist(candidates.flatten(1)).min() > 1e-3  # no two items alike
    assert (queries - candidates[:, :4]).abs().flatten(1).max(dim=1).values.min() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_item_alone_is_encoded_as_beside_others(model, side):
    model.tokenizer.padding_side = side
    items = items_for(model)
    for encode in (model.encode_query, model.encode_document):
        together = encode(items, convert_to_tensor=True)
        for item, vectors in zip(items, together, strict=True):
            close(vectors, encode([item], convert_to_tensor=True)[0])


def test_a_budget_gives_the_first_of_all_vectors(model):
    items = items_for(model)
    full_query = model.encode_query(items, convert_to_tensor=True)
    full_candidate = model.encode_document(items, convert_to_tensor=True)
    for budget in map(Budget.parse, GROUPS):
        query = model.encode_query(items, budget=budget, convert_to_tensor=True)
        candidate = model.encode_document(items, budget=budget, convert_to_tensor=True)
        close(query, full_query[:, : budget.query])
        close(candidate, full_candidate[:, : budget.candidate])


def test_a_prefix_needs_no_later_meta_tokens_unless_all_tokens_see_each_other(name, model):
    for item in items_for(model):
        for task, keep in (("query", 2), ("document", 3)):
            features = model.preprocess([item], task=task)
            width = features["input_ids"].shape[1]
            cut = width - features["meta_positions"].shape[1] + keep
            per_token = ("input_ids", "attention_mask", *model[0].family.per_token)
            shorter = {k: v[:, :cut] if k in per_token else v for k, v in features.items()}
            shorter["meta_positions"] = features["meta_positions"][:, :keep]
            shorter.pop("position_ids", None)
            with torch.inference_mode():
                whole = model[0](dict(features))["token_embeddings"][:, :keep]
                part = model[0](shorter)["token_embeddings"]
            if name in NESTED:
                close(part, whole, atol=2e-5)
            else:
                assert (part - whole).abs().max() > 1e-4


def test_what_is_read_is_the_base_models_last_state_after_its_final_norm(name, create):
    model = create(name, dim="full")
    around = {}
    final_norm = CHECKPOINTS[name].final_norm
    if final_norm is not None:
        norm = model[0].model.get_submodule(final_norm)
        hook = norm.register_forward_hook(
            lambda _, given, output: around.update(before=given[0], after=output)
        )
    for item in items_for(model):
        features = model.preprocess([item], task="document")
        [positions] = features["meta_positions"]
        with torch.inference_mode():
            base = model[0].model(**model_inputs(model, features)).last_hidden_state[0, positions]
        vectors = model.encode_document([item], convert_to_tensor=True)[0]
        close(vectors, normalize(base, dim=-1))
        if final_norm is not None:
            close(vectors, normalize(around["after"][0, positions], dim=-1))
            before = normalize(around["before"][0, positions], dim=-1)
            assert (vectors - before).abs().max() > 1e-2
    if final_norm is not None:
        hook.remove()
    assert model[0].get_embedding_dimension() == base.shape[-1] == vectors.shape[-1]


def test_saved_and_loaded_again_it_encodes_the_same(model, tmp_path):
    model.save_pretrained(str(tmp_path))
    again = MetaEmbed(tmp_path)
    assert again.fingerprint == model.fingerprint
    assert again[0].layout == model[0].layout
    assert again[0].max_visual_tokens == model[0].max_visual_tokens
    for item in items_for(model):
        for name in ("encode_query", "encode_document"):
            assert torch.equal(getattr(again, name)([item])[0], getattr(model, name)([item])[0])


def test_an_input_too_long_is_cut_to_the_length_and_keeps_its_frame(model):
    limit = model[0].item_length
    for task, added in (("query", 4), ("document", 12)):
        long, longer, short = (
            model.preprocess([text], task=task)["input_ids"][0]
            for text in ("whales " * 900, "whales " * 2000, "")
        )
        assert torch.equal(long, longer)
        assert limit - 4 <= len(long) - added <= limit
        layout = model[0].layout or {"query": "[SEP]", "candidate": "[SEP]"}
        tail = layout["query" if task == "query" else "candidate"].rpartition("{text}")[2]
        assert model.tokenizer.decode(long[:-added]).endswith(tail)
        assert model.tokenizer.decode(short[:-added]).endswith(tail)


def test_a_callers_length_cuts_text_alone(model):
    features = model.preprocess(["whales " * 900], task="document", max_length=48)
    assert 40 <= features["input_ids"].shape[1] - 12 <= 48
    if len(items_for(model)) > 4:
        both = {"text": "whales " * 900, "image": picture(300, 200)}
        cut = model.preprocess([both], task="document", max_length=48)
        alone = model.preprocess([picture(300, 200)], task="document")
        assert cut["pixel_values"].shape == alone["pixel_values"].shape


def test_what_a_loss_keeps_beside_the_inputs_does_not_reach_the_backbone(model):
    features = model.preprocess(["whales", "prices"], task="document")
    plain = model[0](dict(features))["token_embeddings"]
    extra = {"key": torch.tensor([3, 4]), "present": torch.tensor([True, False])}
    output = model[0]({**features, **extra})
    assert torch.equal(output["token_embeddings"], plain)
    assert torch.equal(output["key"], extra["key"])


def test_lora_goes_to_the_language_models_layers_and_a_step_of_training_lowers_the_loss(
    name, model, tmp_path
):
    peft = pytest.importorskip("peft")
    model.save_pretrained(str(tmp_path / "base"))
    trained = MetaEmbed(tmp_path / "base").eval()
    base = trained[0].model
    linear = {n for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
    table = next(n for n, m in base.named_modules() if m is base.get_input_embeddings()).rpartition(
        "."
    )[2]
    trained.add_adapter(
        peft.LoraConfig(
            r=2,
            target_modules=trained[0].family.lora_targets,
            trainable_token_indices={table: trained[0].meta_token_ids},
        )
    )
    adapted = {n.removesuffix(".lora_A") for n, _ in base.named_modules() if n.endswith("lora_A")}
    assert adapted == {n for n in linear if n.startswith(CHECKPOINTS[name].layers)}

    torch.manual_seed(0)
    items = items_for(trained)[2:]
    weights = [weight for weight in trained.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1e-3)

    def loss_of():
        sides = [
            trained(trained.preprocess(items, task=task))["token_embeddings"]
            for task in ("query", "document")
        ]
        return cross_entropy(maxsim(*sides) / 0.1, torch.arange(len(items)))

    before = loss_of()
    before.backward()
    optimizer.step()
    assert loss_of() < before
    expected = trained.encode_document(items, convert_to_tensor=True)

    trained.save_pretrained(str(tmp_path / "adapter"))
    again = MetaEmbed(tmp_path / "adapter")
    assert torch.equal(again.encode_document(items, convert_to_tensor=True), expected)
    again.merge_adapter()
    close(again.encode_document(items, convert_to_tensor=True), expected, atol=1e-5)
    again.save_pretrained(str(tmp_path / "merged"))
    merged = MetaEmbed(tmp_path / "merged").encode_document(items, convert_to_tensor=True)
    close(merged, expected, atol=1e-5)


# Pictures


@pytest.mark.parametrize("size", [(1, 1), (27, 900), (3, 2000), (2000, 3), (28, 28), (1500, 1200)])
def test_pictures_of_any_size_fit_the_limit_and_cost_no_meta_token(seeing, size):
    item = {"image": picture(*size), "text": "whales " * 900}
    features = seeing.preprocess([item], task="document")
    image_token = seeing[0].model.config.image_token_id
    visual = int((features["input_ids"] == image_token).sum())
    assert 1 <= visual <= VISUAL_TOKENS
    assert features["input_ids"].shape[1] <= seeing[0].item_length + 12
    assert seeing.encode_document([item])[0].shape == (8, 16)
    assert torch.isfinite(seeing.encode_query([item["image"]])[0]).all()


def test_a_larger_limit_shows_more_of_a_large_picture(create):
    for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "modernvbert"):
        counts = []
        for limit in (20, 64, 100):
            model = create(name, max_visual_tokens=limit)
            ids = model.preprocess([picture(1500, 1200)], task="document")["input_ids"]
            counts.append(int((ids == model[0].model.config.image_token_id).sum()))
            assert counts[-1] <= limit
        assert counts[0] < counts[1] < counts[2] or name == "modernvbert"
        assert counts[0] < counts[1]


def test_a_picture_of_fixed_cost_beyond_the_limit_is_refused(create):
    with pytest.raises(ModelError, match="smallest picture into 16 visual tokens, and 15 are"):
        create("paligemma", max_visual_tokens=15)
    with pytest.raises(ModelError, match="smallest picture into 4 visual tokens, and 3 are"):
        create("modernvbert", max_visual_tokens=3)


def test_the_picture_matters_at_every_vector(seeing):
    one, other = seeing.encode_document([picture(64, 64), picture(64, 64, seed=1)])
    assert (one - other).abs().max(dim=-1).values.min() > 1e-4


def test_text_that_names_the_picture_token_is_text(seeing):
    token = seeing[0].processor.image_token
    vectors = seeing.encode_document([f"{token} whales", {"text": token, "image": picture(64, 64)}])
    close(vectors[0], seeing.encode_document("  whales"))


def test_parts_of_a_batch_are_encoded_as_the_whole(seeing):
    from sentence_transformers.base.losses.gradcache import _create_minibatch

    items = items_for(seeing)
    with torch.inference_mode():
        features = seeing.preprocess(items, task="document")
        whole = seeing[0](dict(features))["token_embeddings"]
        for start in range(0, len(items), 2):
            part = _create_minibatch(dict(features), start, start + 2)
            close(seeing[0](part)["token_embeddings"], whole[start : start + 2], atol=2e-5)
