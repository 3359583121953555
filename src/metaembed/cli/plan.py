"""`metaembed plan`: what a search or a training run will take, before money is spent."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from metaembed.cli.options import quiet_libraries
from metaembed.errors import MetaEmbedError

app = typer.Typer(no_args_is_help=True, help="What a search or a training run will take.")

GIB = 2**30
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("search")
def search(
    items: Annotated[str, typer.Option(help="Candidates, for example 1e6.")],
    dim: Annotated[int, typer.Option(min=1, help="Width of a vector.")] = 128,
    budget: Annotated[str, typer.Option("--budget", "-b", help="Vectors spent.")] = "16x64",
    stored: Annotated[
        int | None, typer.Option(min=1, help="Vectors kept of each candidate; the budget's.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Storage type.")] = "bfloat16",
    bandwidth: Annotated[
        str | None, typer.Option(help="Of memory, for example 30GB/s; gives a latency.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Operations a second of that type, for example 400Gop/s.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bytes of an index, and what one exact query reads and computes."""
    from typing import cast, get_args

    from metaembed.budget import Budget
    from metaembed.plan.search import search_cost
    from metaembed.storage import StorageType

    if dtype not in get_args(StorageType):
        raise MetaEmbedError(
            f"Storage type {dtype!r} is not known; known are {', '.join(get_args(StorageType))}."
        )
    spent = Budget.parse(budget)
    cost = search_cost(
        int(_number(items, "--items", "")),
        dim=dim,
        budget=spent,
        stored=spent.candidate if stored is None else stored,
        dtype=cast("StorageType", dtype),
        bandwidth=None if bandwidth is None else _number(bandwidth, "--bandwidth", "B/s"),
        rate=None if rate is None else _number(rate, "--rate", "op/s"),
    )
    if as_json:
        typer.echo(json.dumps(cost._asdict()))
        return
    rows = [
        ("index", f"{cost.index_bytes / GIB:.3f} GiB"),
        ("read by a query", f"{cost.read_bytes / GIB:.3f} GiB"),
        ("computed by a query", f"{cost.operations / 1e9:.3f} Gop"),
    ]
    if cost.seconds is not None:
        rows.append(("at least", f"{1000 * cost.seconds:.2f} ms, bound by {cost.bound_by}"))
    _print(rows)


@app.command("train")
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; see recipes/.", show_default=False)],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change an entry of the recipe; repeat.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 1,
    gpu: Annotated[str | None, typer.Option(help="Which, for example h100-80gb.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(help="GiB of one, if not named.")] = None,
    tflops: Annotated[float | None, typer.Option(help="Of one in bfloat16, dense.")] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of that rate that is reached.")
    ] = 0.35,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Weights and optimizer over all GPUs (FSDP).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Memory, operations and hours of a recipe."""
    from metaembed.plan.backbone import backbone_size
    from metaembed.plan.gpus import Gpu, gpu_named
    from metaembed.plan.training import tokens_of, training_cost
    from metaembed.training.recipe import load_recipe

    plan = load_recipe(recipe, changes or ())
    quiet_libraries()
    if tflops is not None:
        chosen: Gpu | None = Gpu((gpu_memory or 0) * GIB, tflops * 1e12)
    else:
        chosen = None if gpu is None else gpu_named(gpu)
    targets = None if plan.lora is None else plan.lora.targets
    size = backbone_size(plan.model.backbone, targets=targets)
    tokens = tokens_of(plan)
    cost = training_cost(
        plan,
        size,
        tokens,
        num_gpus=gpus,
        shards=gpus if sharded else 1,
        gpu=chosen,
        utilisation=utilisation,
    )
    if as_json:
        found: dict[str, Any] = {**cost._asdict(), "memory": cost.memory}
        found |= {"parameters": size.parameters, "assumed_tokens": tokens._asdict()}
        typer.echo(json.dumps(found | {"gpus": gpus, "utilisation": utilisation}))
        return
    rows = [
        ("backbone", f"{size.parameters / 1e9:.2f} billion parameters"),
        ("trained", f"{cost.trained / 1e6:.2f} million numbers"),
        ("assumed items", f"query {tokens.query}, candidate {tokens.candidate} tokens"),
        ("weights", f"{cost.weights / GIB:.2f} GiB on each GPU"),
        ("gradients", f"{cost.gradients / GIB:.2f} GiB"),
        ("optimizer", f"{cost.optimizer / GIB:.2f} GiB"),
        ("activations", f"{cost.activations / GIB:.2f} GiB, estimated"),
        ("together", f"{cost.memory / GIB:.2f} GiB{_fits(cost.memory, chosen)}"),
        ("a step", f"{cost.tokens:,} tokens, {cost.operations / 1e12:,.3g} Top on {gpus} GPU(s)"),
        ("steps", f"{cost.steps:,}"),
    ]
    if cost.hours is not None:
        rows.append(
            (
                "duration",
                f"{cost.hours:,.1f} hours at {utilisation:.0%} of the GPU's rate "
                f"({cost.hours * gpus:,.0f} GPU hours)",
            )
        )
    _print(rows)


def _fits(memory: int, gpu: Any) -> str:
    if gpu is None or not gpu.memory:
        return ""
    share = memory / gpu.memory
    return f", {share:.0%} of the GPU's memory" + (": it does not fit" if share > 1 else "")


def _print(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")


_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def _number(text: str, option: str, unit: str) -> float:
    """
    >>> _number("30GB/s", "--bandwidth", "B/s"), _number("1e6", "--items", "")
    (30000000000.0, 1000000.0)
    """
    pattern = r"([0-9.]+(?:e[0-9]+)?)\s*([kKMGT]?)" + f"(?:{re.escape(unit)})?"
    match = re.fullmatch(pattern, text.strip())
    try:
        if match is None:
            raise ValueError
        number = float(match[1]) * _UNITS[match[2]]
        if not number >= 1:
            raise ValueError
    except ValueError:
        example = f"30G{unit}" if unit else "1e6"
        raise MetaEmbedError(
            f"{option} is a number of at least 1, for example {example}; got {text!r}."
        ) from None
    return number
