"""Running a recipe: data, model, adapter and loss for sentence-transformers' trainer."""

import json
import logging
import platform
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from metaembed.errors import ModelError, RecipeError
from metaembed.model import MetaEmbed
from metaembed.training.anchor import AnchoredMMRLoss, pooled, principal_directions
from metaembed.training.recipe import Recipe

logger = logging.getLogger(__name__)

ANCHOR_TEXTS = 1000
"""Candidates that the projection's principal directions are taken from."""
SAMPLED_WINDOWS = (1, 4, 8)
"""Parts of those candidates whose vectors count, so that whole texts and parts are kept alike."""


def train(recipe: Recipe, out: Path, *, progress: bool = True) -> Path:
    """Run a recipe and return the folder of the trained adapter, `out/model`.

    Goes on from the last checkpoint under `out` when there is one. Beside the model lie the
    recipe and what it ran with.
    """
    _require("peft", "accelerate", "datasets")
    from sentence_transformers import MultiVectorEncoderTrainer

    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    _check_same_run(recipe, out)
    pairs = _pairs(recipe, out / "pairs.jsonl")
    model = _model(recipe)
    loss = _loss(recipe, model, [candidate for _, candidate, _ in pairs[:ANCHOR_TEXTS]])
    _add_adapter(recipe, model)
    trainer = MultiVectorEncoderTrainer(
        model=model,
        args=_arguments(recipe, out, progress),
        train_dataset=_datasets(pairs, recipe.optim.batch_size),
        loss=loss,
    )
    trainer.train(resume_from_checkpoint=any((out / "checkpoints").glob("checkpoint-*")))
    target = out / "model"
    model.eval().save_pretrained(str(target), create_model_card=False)
    _record(recipe, target, pairs=len(pairs), log=trainer.state.log_history)
    return target


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    if missing := [package for package in packages if find_spec(package) is None]:
        raise ModelError(
            f"Training needs {', '.join(missing)}; install it with pip install 'metaembed[train]'."
        )


def _check_same_run(recipe: Recipe, out: Path) -> None:
    file = out / "recipe.json"
    text = recipe.model_dump_json(indent=2)
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise RecipeError(
            f"{str(out)!r} holds a run of another recipe; give a new folder, or delete that one."
        )
    file.write_text(text, encoding="utf-8")


def _pairs(recipe: Recipe, file: Path) -> list[tuple[str, str, str]]:
    """`(query, candidate, package)` of every training pair; kept in `file` for the next time."""
    from metaembed.data.pairs import read_pairs, training_pairs, with_hard_negatives, write_pairs

    if not file.exists():
        logger.info("Collecting training pairs from the installed packages' documentation")
        found = training_pairs(seed=recipe.seed, per_package=recipe.data.per_package)
        partial = file.with_suffix(".partial")
        write_pairs(partial, with_hard_negatives(found, seed=recipe.seed))
        partial.replace(file)
    return [(pair.query, pair.candidate, pair.package) for pair, _ in read_pairs(file)]


def _model(recipe: Recipe) -> MetaEmbed:
    largest = recipe.model.groups[-1]
    return MetaEmbed.create(
        recipe.model.backbone,
        num_query_tokens=largest.query,
        num_candidate_tokens=largest.candidate,
        dim=recipe.model.dim,
        groups=recipe.model.groups,
        seed=recipe.seed,
        config_kwargs=dict(recipe.model.config),
        # With padding and bfloat16 the fused kernel is several times slower on a CPU.
        model_kwargs={} if torch.cuda.is_available() else {"attn_implementation": "eager"},
    )


def _loss(recipe: Recipe, model: MetaEmbed, texts: list[str]) -> AnchoredMMRLoss:
    """The loss, with the projection set to the backbone's principal directions."""
    from transformers import AutoModel

    from metaembed.backbones import resolve_backbone

    source = resolve_backbone(recipe.model.backbone)
    backbone = AutoModel.from_pretrained(
        source, use_safetensors=True, attn_implementation=model[0].config._attn_implementation
    )
    backbone = backbone.to(model.device).eval()
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            batch = model.tokenizer(
                texts[start : start + 32],
                padding=True,
                truncation=True,
                max_length=recipe.optim.max_tokens,
                return_tensors="pt",
            ).to(model.device)
            states = backbone(**batch).last_hidden_state
            identity = torch.eye(states.shape[-1], device=states.device)
            mask = batch["attention_mask"].bool()
            vectors.append(pooled(states, mask, SAMPLED_WINDOWS, identity).flatten(0, 1))
    if recipe.model.dim == "full":
        projection = torch.eye(model[0].get_embedding_dimension())
    else:
        projection = principal_directions(torch.cat(vectors), recipe.model.dim)
        with torch.no_grad():
            model[1].linear.weight.copy_(projection)
    return AnchoredMMRLoss(
        model,
        backbone,
        projection,
        anchor=recipe.optim.anchor,
        temperature=recipe.optim.temperature,
        score=recipe.optim.score,
        weights=[recipe.optim.group_weight] * len(model.groups),
    )


def _add_adapter(recipe: Recipe, model: MetaEmbed) -> None:
    from peft import LoraConfig

    table = next(
        name.rpartition(".")[2]
        for name, module in model[0].model.named_modules()
        if module is model[0].model.get_input_embeddings()
    )
    model.add_adapter(
        LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            target_modules=list(recipe.lora.targets),
            exclude_modules=r".*pooler.*",  # not on the way to the vectors
            trainable_token_indices={table: model[0].meta_token_ids},
        )
    )
    for module in list(model)[1:]:
        module.requires_grad_(True)


def _datasets(pairs: Iterable[tuple[str, str, str]], batch_size: int) -> dict[str, Any]:
    """One data set a package, so that a batch's negatives come from the positive's own package."""
    from datasets import Dataset

    by_package: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for query, candidate, package in pairs:
        by_package[package].append((query, candidate))
    small = [p for p, rows in by_package.items() if len(rows) < batch_size]
    rest = [row for package in small for row in by_package.pop(package)]
    if rest:
        by_package["other packages"] = rest
    return {
        package: Dataset.from_dict(
            {"query": [query for query, _ in rows], "positive": [pos for _, pos in rows]}
        )
        for package, rows in by_package.items()
    }


def _arguments(recipe: Recipe, out: Path, progress: bool) -> Any:
    from sentence_transformers import MultiVectorEncoderTrainingArguments

    optim = recipe.optim
    return MultiVectorEncoderTrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=optim.steps,
        per_device_train_batch_size=optim.batch_size,
        learning_rate=optim.learning_rate,
        learning_rate_mapping={r"trainable_tokens": optim.meta_token_learning_rate},
        warmup_steps=optim.warmup_steps,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=optim.max_tokens,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cpu._is_avx512_bf16_supported() or torch.cuda.is_available(),
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataloader_drop_last=True,
        save_steps=optim.save_steps,
        save_total_limit=1,
        logging_steps=10,
        report_to="none",
        disable_tqdm=not progress,
    )


def _record(recipe: Recipe, target: Path, *, pairs: int, log: list[dict[str, Any]]) -> None:
    import sentence_transformers
    import transformers

    losses = [entry["loss"] for entry in log if "loss" in entry]
    record = {
        "recipe": recipe.model_dump(mode="json"),
        "pairs": pairs,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "seconds": next(
            (entry["train_runtime"] for entry in log if "train_runtime" in entry), None
        ),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
    }
    (target / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
