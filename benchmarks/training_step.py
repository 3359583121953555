"""A training step with the MMR loss against the multi-vector losses that one could take instead.

python benchmarks/training_step.py [--rounds 15] [--out benchmarks/results/training_step.json]

All train the same tiny BERT (random weights, 16 and 64 meta tokens, dim 128) on the same batch, in
turns: forward, backward and the optimizer's step. The smaller the backbone, the more of a step is
the loss, so that with a real one the ratios are nearer to 1. `loss alone` is forward and backward
of given embeddings. colpali-engine takes part where it can be imported.

Seconds are those of the processor, on one thread: what else a shared machine does at the same time
is not in them.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, provenance, store
from rounds import column, ratios, spread
from torch import Tensor, nn

from metaembed.loss import MMRLoss
from metaembed.model import MetaEmbed

RESULTS = ROOT / "benchmarks/results/training_step.json"
TEMPERATURE = 0.03
MINI_BATCH = 8
WORDS = (4, 24)
"""Fewest and most of an item's words."""
MMR, MMR_CACHED, MMR_SHARED = "mmr", "mmr in mini batches", "mmr, hard negatives of all rows"
PLAIN, PLAIN_CACHED = "library", "library in mini batches"
COLPALI = "colpali-engine"
PAIRS = ((MMR, PLAIN), (MMR_SHARED, PLAIN), (MMR_CACHED, PLAIN_CACHED), (MMR, COLPALI))
"""Whose ratios are kept. The library compares a query with the hard negatives of all rows, the
paper with its own."""

Features = list[dict[str, Any]]
Loss = Callable[[Features], Tensor]

log = logging.getLogger(__name__)


class Given(nn.Module):
    """A model whose embeddings stand in the features: what a step costs without one."""

    groups = ("1x1", "2x4", "4x8", "8x16", "16x64")

    def forward(self, features: dict[str, Any], **_named: Any) -> dict[str, Tensor]:
        vectors = features["token_embeddings"]
        return {"token_embeddings": vectors, "attention_mask": torch.ones(vectors.shape[:2])}


class ColpaliLoss:
    """colpali-engine's loss of embeddings behind the model."""

    def __init__(self, model: nn.Module, *, num_negatives: int) -> None:
        from colpali_engine.loss import ColbertLoss, ColbertNegativeCELoss

        self.model = model
        kind = ColbertNegativeCELoss if num_negatives else ColbertLoss
        self.loss = kind(temperature=TEMPERATURE, normalize_scores=False)

    def __call__(self, features: Features) -> Tensor:
        query, positive, *negatives = MMRLoss(self.model)._embedded(features)
        hard = [torch.stack(negatives, dim=1)] if negatives else []
        loss: Tensor = self.loss(query, positive, *hard)
        return loss


def losses(model: nn.Module, *, num_negatives: int) -> dict[str, Loss]:
    from sentence_transformers.multi_vector_encoder.losses import (
        CachedMultiVectorMultipleNegativesRankingLoss,
        MultiVectorMultipleNegativesRankingLoss,
    )

    scale = 1 / TEMPERATURE
    found: dict[str, Loss] = {
        MMR: MMRLoss(model),
        PLAIN: MultiVectorMultipleNegativesRankingLoss(model, scale=scale),
    }
    if num_negatives:
        found[MMR_SHARED] = MMRLoss(model, gather="all")
    if not isinstance(model, Given):
        found[MMR_CACHED] = MMRLoss(model, mini_batch_size=MINI_BATCH)
        found[PLAIN_CACHED] = CachedMultiVectorMultipleNegativesRankingLoss(
            model, scale=scale, mini_batch_size=MINI_BATCH
        )
    try:
        found[COLPALI] = ColpaliLoss(model, num_negatives=num_negatives)
    except ImportError as error:
        log.info("colpali-engine does not take part: %s", error)
    return found


def tiny_model(folder: Path) -> MetaEmbed:
    # Also prepares what colpali-engine's import needs of torchvision beside a CPU build of torch.
    sys.path.append(str(ROOT))
    import tests.conftest  # noqa: F401
    from tests.tiny import make_bert

    model = MetaEmbed.create(make_bert(folder, positions=128))
    model[0].model.pooler.requires_grad_(False)
    return model.train()


def batch(model: MetaEmbed, *, rows: int, num_negatives: int) -> Features:
    """Random words of the tiny tokenizer's."""
    from tests.tiny import CORPUS

    words = " ".join(CORPUS).split()
    draw = random.Random(0)
    columns = [
        [" ".join(draw.choices(words, k=draw.randint(*WORDS))) for _ in range(rows)]
        for _ in range(2 + num_negatives)
    ]
    tasks = ["query", *["document"] * (1 + num_negatives)]
    return [model.preprocess(c, task=task) for c, task in zip(columns, tasks, strict=True)]


def embedded(model: MetaEmbed, features: Features) -> Features:
    with torch.no_grad():
        vectors = [model(dict(column))["token_embeddings"] for column in features]
    return [{"token_embeddings": one.requires_grad_()} for one in vectors]


def steps(
    chosen: Mapping[str, Loss], features: Features, parameters: Sequence[Tensor]
) -> dict[str, Callable[[], None]]:
    optimizer = torch.optim.AdamW(parameters, lr=0.0)  # all stay at the same weights

    def step(loss: Loss) -> None:
        optimizer.zero_grad()
        loss([dict(column) for column in features]).backward()
        optimizer.step()

    return {name: lambda loss=loss: step(loss) for name, loss in chosen.items()}


def measured(calls: Mapping[str, Callable[[], None]], *, rounds: int) -> dict[str, Any]:
    """Round after round, each method once a round, in an order that changes."""
    for call in calls.values():
        call()  # the first one of all is slow
    times: list[dict[str, float]] = []
    for number in range(rounds):
        names = random.Random(number).sample(list(calls), len(calls))
        times.append({name: processor_seconds(calls[name]) for name in names})
    found = {
        "seconds": {name: spread(column(times, name)) for name in calls},
        "ratios": {
            f"{name} / {to}": spread(ratios(times, name, to))
            for name, to in PAIRS
            if name in calls and to in calls
        },
    }
    for name, ratio in found["ratios"].items():
        log.info("%s: %.2f (%.2f to %.2f)", name, ratio["median"], ratio["p10"], ratio["p90"])
    return found


def processor_seconds(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder))
    for num_negatives in (0, 1):
        features = batch(model, rows=arguments.rows, num_negatives=num_negatives)
        given = embedded(model, features)
        cases: dict[str, tuple[nn.Module, Features, Sequence[Tensor]]] = {
            "step": (model, features, [p for p in model.parameters() if p.requires_grad]),
            "loss alone": (Given(), given, [column["token_embeddings"] for column in given]),
        }
        for kind, (module, columns, parameters) in cases.items():
            name = f"{kind}, {arguments.rows} rows, {num_negatives} hard negatives"
            log.info(name)
            made_with = provenance(synthetic=True)
            chosen = losses(module, num_negatives=num_negatives)
            if COLPALI in chosen:
                made_with["versions"][COLPALI] = version(COLPALI)
            found = measured(steps(chosen, columns, parameters), rounds=arguments.rounds)
            store(arguments.out, name, {**found, "provenance": made_with})


if __name__ == "__main__":
    main()
