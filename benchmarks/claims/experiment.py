"""One run: a model trained from scratch on scenes, and how well it retrieves by budget."""

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scenes
import torch
from backbone import make_backbone
from variants import Variant

from metaembed.budget import Budget
from metaembed.evaluation.metrics import hit_from_ranks, ndcg_from_ranks, ranks_of_gold
from metaembed.items import Item
from metaembed.loss import MMRLoss
from metaembed.model import MetaEmbed
from metaembed.scoring import maxsim

BATCH, LEARNING_RATE, WARMUP = 32, 2e-3, 50
"""Rows of a step: scenes and a near duplicate of each, with queries of their own."""
NUM_TEST_SCENES = 300
NEAR_DUPLICATES = 4
"""Of every test scene among the candidates."""


def run(variant: Variant, *, seed: int, steps: int) -> dict[str, Any]:
    """Train and evaluate one variant."""
    model = new_model(variant, seed=seed)
    loss = MMRLoss(model, score=variant.score, temperature=variant.temperature)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    losses, start = [], time.perf_counter()
    model.train()
    for queries, candidates in training_batches(seed=seed, steps=steps):
        value = loss(
            [
                model.preprocess(queries, task="query"),
                model.preprocess(candidates, task="document"),
            ]
        )
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(value.item())
    return {
        "variant": variant._asdict(),
        "seed": seed,
        "steps": steps,
        "seconds": time.perf_counter() - start,
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-20:])),
        "quality": evaluate(model.eval(), variant.evaluated),
    }


def new_model(variant: Variant, *, seed: int) -> MetaEmbed:
    largest = Budget.parse(variant.groups[-1])
    with tempfile.TemporaryDirectory() as folder:
        model = MetaEmbed.create(
            make_backbone(Path(folder), seed=seed),
            num_query_tokens=largest.query,
            num_candidate_tokens=largest.candidate,
            groups=variant.groups,
            dim=variant.dim,
            seed=seed,
            model_kwargs={"attn_implementation": "sdpa"},
        )
    start_meta_tokens(model, variant.meta_tokens, seed=seed)
    if variant.candidate_reads == "own":
        read_own_tokens_alone(model)
    return model


def read_own_tokens_alone(model: MetaEmbed) -> None:
    """Put a candidate's own meta tokens alone behind it; the product puts both sets there."""

    class Alone(type(model[0])):  # type: ignore[misc]
        @property
        def meta_token_ids(self) -> list[int]:
            return self.candidate_ids

    model[0].__class__ = Alone


@torch.no_grad()
def start_meta_tokens(model: MetaEmbed, start: str, *, seed: int) -> None:
    table = model[0].model.get_input_embeddings().weight
    ids = torch.tensor(model[0].meta_token_ids)
    generator = torch.Generator().manual_seed(seed)
    if start == "normal":
        table[ids] = torch.randn(len(ids), table.shape[1], generator=generator)
    elif start == "orthogonal":
        rows = torch.empty(len(ids), table.shape[1])
        torch.nn.init.orthogonal_(rows, generator=generator)
        table[ids] = rows * table[: min(ids)].norm(dim=-1).mean()


def training_batches(*, seed: int, steps: int) -> Iterator[tuple[list[Item], list[Item]]]:
    """Queries of one kind and their scenes; every second row is nearly the one before it."""
    rng = np.random.default_rng([seed, 1])
    for step in range(steps):
        kind = scenes.KINDS[step % len(scenes.KINDS)]
        queries: list[Item] = []
        candidates: list[Item] = []
        for _ in range(BATCH // 2):
            scene = scenes.new_scene(rng, test=False)
            query = scenes.new_query(rng, scene, kind)
            near = scenes.near_duplicate(rng, scene, query.known)
            for one, cells in ((scene, query.known), (near, query.known)):
                asked = scenes.new_query(rng, one, kind, known=cells)
                queries.append(item_of(asked, rng))
                candidates.append(picture(one, rng))
        yield queries, candidates


def item_of(query: scenes.Query, rng: np.random.Generator) -> Item:
    image = None if query.picture is None else scenes.draw(query.picture, rng)
    return Item(text=query.text, image=image)


def picture(scene: scenes.Scene, rng: np.random.Generator) -> Item:
    return Item(image=scenes.draw(scene, rng))


def evaluate(model: MetaEmbed, budgets: tuple[str, ...]) -> dict[str, Any]:
    """NDCG@5 and hit@1 by budget and kind of query, the same test for every run."""
    rng = np.random.default_rng(2**20)
    queries: dict[str, list[Item]] = {kind: [] for kind in scenes.KINDS}
    candidates: list[Item] = []
    gold = []
    for _ in range(NUM_TEST_SCENES):
        scene = scenes.new_scene(rng, test=True)
        gold.append(len(candidates))
        candidates.append(picture(scene, rng))
        for number, kind in enumerate(scenes.KINDS * 2):
            query = scenes.new_query(rng, scene, kind)
            if number < len(scenes.KINDS):
                queries[kind].append(item_of(query, rng))
            if number < NEAR_DUPLICATES:
                candidates.append(picture(scenes.near_duplicate(rng, scene, query.known), rng))
    embedded = model.encode_document(candidates, convert_to_tensor=True, batch_size=64)
    found: dict[str, Any] = {}
    for kind, items in queries.items():
        vectors = model.encode_query(items, convert_to_tensor=True, batch_size=64)
        for text in budgets:
            budget = Budget.parse(text)
            scores = maxsim(vectors[:, : budget.query], embedded[:, : budget.candidate]).numpy()
            ranks = ranks_of_gold(scores, np.array(gold))
            found.setdefault(text, {})[kind] = {
                "ndcg@5": float(ndcg_from_ranks(ranks, k=5).mean()),
                "hit@1": float(hit_from_ranks(ranks, k=1).mean()),
            }
    for kinds in found.values():
        kinds["mean"] = {
            name: float(np.mean([values[name] for values in kinds.values()]))
            for name in ("ndcg@5", "hit@1")
        }
    return found


def _rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP)))
