"""`metaembed train`: run a recipe; `metaembed merge-adapter`: a trained adapter into its base."""

import json
from pathlib import Path
from typing import Annotated

import typer

from metaembed.cli.options import keep_freed_memory, quiet_libraries


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; see recipes/.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run; goes on where it stopped.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change an entry of the recipe, like optim.steps=10; repeat."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record of the trained model.")
    ] = False,
) -> None:
    """Train a MetaEmbed model by a recipe. Goes on from the last checkpoint after a crash.

    On several GPUs: torchrun --nproc-per-node 8 -m metaembed train RECIPE --out FOLDER.
    """
    from metaembed.training.recipe import load_recipe

    plan = load_recipe(recipe, changes or ())
    quiet_libraries()
    keep_freed_memory()
    from metaembed.training.provenance import RECORD
    from metaembed.training.run import train as run

    folder = run(plan, out, progress=not as_json)
    if as_json:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        typer.echo(json.dumps({"model": str(folder), **record}, ensure_ascii=False))
    else:
        typer.echo(f"Trained model: {folder}. Next: metaembed eval {folder}")


def merge_adapter(
    model: Annotated[str, typer.Argument(help="A trained adapter.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for the whole model.")],
) -> None:
    """Fold an adapter into its base: an ordinary checkpoint, which needs no peft to load."""
    from metaembed.errors import ModelError

    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ModelError(f"{str(out)!r} is there already; give a new folder.")
    quiet_libraries()
    from metaembed.models import load_model

    load_model(model).save_pretrained(str(out), create_model_card=False)
    typer.echo(f"Whole model: {out}")
