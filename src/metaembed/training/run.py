"""Running a recipe: data, model, adapter and loss for sentence-transformers' trainer."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from metaembed.data.examples import Example, Examples
from metaembed.data.mixture import Mixture
from metaembed.errors import ModelError, RecipeError
from metaembed.model import MetaEmbed
from metaembed.training.corpus import python_docs
from metaembed.training.provenance import record_of, write_record
from metaembed.training.recipe import Recipe
from metaembed.training.validation import BudgetValidation, hold_out

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
ANCHOR_TEXTS = 1000
"""Candidates that the projection's principal directions are taken from."""


def train(recipe: Recipe, out: Path, *, progress: bool = True) -> Path:
    """Run a recipe and return the folder of the trained model, `out/model`.

    Goes on from the last checkpoint under `out` when there is one, and computes what a run that
    was never cut would have. Beside the model lie the recipe and what it ran with. Under
    `torchrun` or `accelerate launch` every process calls it, and the batches are shared out.
    """
    _require("peft", "accelerate", "datasets")
    from accelerate import PartialState

    from metaembed.training.trainer import MetaEmbedTrainer

    torch.manual_seed(recipe.seed)
    processes = PartialState()
    with processes.main_process_first():
        out.mkdir(parents=True, exist_ok=True)
        _check_same_run(recipe, out)
        mixture, held_out = _data(recipe, out)
    model = _model(recipe)
    loss = _loss(recipe, model, mixture)
    if recipe.lora is not None:
        _add_adapter(recipe, model)
    for name, parameter in model.named_parameters():
        if ".pooler." in name:  # not on the way to the vectors: it never gets a gradient
            parameter.requires_grad_(False)
    record = record_of(recipe, model, _data_record(recipe, mixture))
    trainer = MetaEmbedTrainer(
        batches=_batches(recipe, mixture, processes.num_processes),
        record=record,
        progress=progress,
        model=model,
        args=_arguments(recipe, out, progress=progress, validates=bool(held_out)),
        train_dataset=_rows(mixture),
        data_collator=_collator(recipe, model),
        loss=loss,
        evaluator=BudgetValidation(held_out) if held_out else None,
    )
    trainer.train(resume_from_checkpoint=any((out / CHECKPOINTS).glob("checkpoint-*")))
    target = out / "model"
    if processes.is_main_process:
        model.eval().save_pretrained(str(target), create_model_card=False)
        write_record({**record, **_outcome(trainer.state.log_history)}, target)
    processes.wait_for_everyone()
    return target


def _require(*packages: str) -> None:
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


def _data(recipe: Recipe, out: Path) -> tuple[Mixture, list[Example]]:
    """What is trained on, and what is held out."""
    data = recipe.data
    if data.corpus is not None:
        sources: Sequence[Examples] = python_docs(
            recipe, out / "pairs.jsonl", batch_size=recipe.optim.batch_size
        )
        weights: Sequence[float] = [len(source) for source in sources]
    else:
        opened = Mixture.open(data.sources, seed=recipe.seed)
        sources, weights = opened.sources, opened.probabilities
    split = [hold_out(source, data.held_out) for source in sources]
    mixture = Mixture([source for source, _ in split], weights=weights)
    return mixture, [example for _, examples in split for example in examples]


def _data_record(recipe: Recipe, mixture: Mixture) -> list[dict[str, Any]]:
    settings = [one.model_dump(mode="json") for one in recipe.data.sources]
    if not settings:
        settings = [{"corpus": recipe.data.corpus}] * len(mixture.sources)
    return [
        {**one, "name": source.name, "rows": len(source), "held_out": recipe.data.held_out}
        for one, source in zip(settings, mixture.sources, strict=True)
    ]


def _model(recipe: Recipe) -> MetaEmbed:
    section = recipe.model
    largest = section.groups[-1]
    return MetaEmbed.create(
        section.backbone,
        num_query_tokens=largest.query,
        num_candidate_tokens=largest.candidate,
        dim=section.dim,
        groups=section.groups,
        max_visual_tokens=section.max_visual_tokens,
        seed=recipe.seed,
        config_kwargs=dict(section.config),
        model_kwargs={
            "attn_implementation": _attention(section.attention),
            "dtype": section.precision,
        },
    )


def _attention(asked: str) -> str:
    if asked != "auto":
        return asked
    if not torch.cuda.is_available():
        return "eager"
    return "flash_attention_2" if find_spec("flash_attn") is not None else "sdpa"


def _loss(recipe: Recipe, model: MetaEmbed, mixture: Mixture) -> Any:
    from metaembed.loss import MMRLoss
    from metaembed.training.anchor import AnchoredMMRLoss, backbone_of, set_projection

    optim = recipe.optim
    common: dict[str, Any] = {
        "temperature": optim.temperature,
        "score": optim.score,
        "weights": [optim.group_weight] * len(model.groups),
        "gather": optim.gather,
        "false_negative_margin": optim.false_negative_margin,
    }
    if recipe.model.projection == "orthogonal" and not optim.anchor:
        return MMRLoss(model, mini_batch_size=optim.mini_batch_size, **common)
    backbone = backbone_of(model, recipe.model.backbone)
    texts = [
        mixture[index].positive.prompt() or "" for index in range(min(ANCHOR_TEXTS, len(mixture)))
    ]
    projection = set_projection(model, backbone, texts, max_tokens=optim.max_tokens)
    if not optim.anchor:
        return MMRLoss(model, mini_batch_size=optim.mini_batch_size, **common)
    return AnchoredMMRLoss(model, backbone, projection, anchor=optim.anchor, **common)


def _add_adapter(recipe: Recipe, model: MetaEmbed) -> None:
    from peft import LoraConfig

    section = recipe.lora
    assert section is not None
    backbone = model[0].model
    table = next(
        name.rpartition(".")[2]
        for name, module in backbone.named_modules()
        if module is backbone.get_input_embeddings()
    )
    model.add_adapter(
        LoraConfig(
            r=section.rank,
            lora_alpha=section.alpha,
            lora_dropout=section.dropout,
            init_lora_weights="gaussian" if section.init == "gaussian" else True,
            target_modules=_targets(recipe, model),
            exclude_modules=r".*pooler.*",  # not on the way to the vectors
            trainable_token_indices={table: model[0].meta_token_ids},
        )
    )
    for module in list(model)[1:]:
        module.requires_grad_(True)


def _targets(recipe: Recipe, model: MetaEmbed) -> list[str] | str:
    """Names of layers, or a regular expression for their whole names."""
    from metaembed.backbones import family_of

    assert recipe.lora is not None
    if recipe.lora.targets is not None:
        return list(recipe.lora.targets)
    return family_of(model[0].config.model_type).lora_targets


def _rows(mixture: Mixture) -> Any:
    """The mixture as the library's kind of data set, which reads a row when it is asked for."""
    from datasets import Dataset

    def read(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        examples, origins = [], []
        for index in batch["row"]:
            source, row = mixture.locate(index)
            examples.append(mixture.sources[source][row])
            origins.append(mixture.sources[source].where(row))
        return {"example": examples, "origin": origins}

    return Dataset.from_dict({"row": range(len(mixture))}).with_transform(read)


def _collator(recipe: Recipe, model: MetaEmbed) -> Any:
    from metaembed.training.collator import ExampleCollator

    return ExampleCollator(
        preprocess_fn=model.preprocess,
        max_length=recipe.optim.max_tokens,
        num_negatives=max((one.num_negatives for one in recipe.data.sources), default=0),
    )


def _batches(recipe: Recipe, mixture: Mixture, num_processes: int) -> Any:
    return mixture.batches(
        batch_size=recipe.optim.batch_size,
        interleave=recipe.data.interleave or recipe.optim.batch_size,
        seed=recipe.seed,
        num_processes=num_processes,
        avoid_duplicates=recipe.data.avoid_duplicates,
    )


def _arguments(recipe: Recipe, out: Path, *, progress: bool, validates: bool) -> Any:
    from sentence_transformers import MultiVectorEncoderTrainingArguments

    optim, report = recipe.optim, recipe.report
    own_rate = optim.meta_token_learning_rate
    return MultiVectorEncoderTrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        max_steps=optim.steps,
        per_device_train_batch_size=optim.batch_size,
        learning_rate=optim.learning_rate,
        learning_rate_mapping={} if own_rate is None else {r"trainable_tokens": own_rate},
        warmup_steps=optim.warmup_steps,
        lr_scheduler_type=optim.schedule,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        max_length=optim.max_tokens,
        use_cpu=not torch.cuda.is_available(),
        bf16=_has_fast_bfloat16() if optim.bf16 == "auto" else optim.bf16,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataloader_drop_last=True,
        dataloader_num_workers=optim.workers,
        remove_unused_columns=False,
        save_steps=optim.save_steps,
        save_total_limit=optim.keep_checkpoints,
        logging_steps=report.log_steps,
        eval_strategy="steps" if validates else "no",
        eval_steps=report.validate_steps or optim.save_steps,
        report_to=list(report.to) or "none",
        disable_tqdm=not progress,
    )


def _has_fast_bfloat16() -> bool:
    return torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()


def _outcome(log: list[dict[str, Any]]) -> dict[str, Any]:
    losses = [entry["loss"] for entry in log if "loss" in entry]
    seconds = [entry["train_runtime"] for entry in log if "train_runtime" in entry]
    validated = [entry for entry in log if any(name.endswith("_ndcg@5") for name in entry)]
    return {
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "seconds": seconds[-1] if seconds else None,
        "validation": validated[-1] if validated else None,
    }
