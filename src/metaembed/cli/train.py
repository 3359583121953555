"""`metaembed train`: run a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from metaembed.cli.options import keep_freed_memory, quiet_libraries


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; see recipes/.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run; goes on where it stopped.")
    ],
) -> None:
    """Train a MetaEmbed model by a recipe and save its adapter."""
    from metaembed.training.recipe import load_recipe

    plan = load_recipe(recipe)
    quiet_libraries()
    keep_freed_memory()
    from metaembed.training.run import train as run

    folder = run(plan, out)
    typer.echo(f"Trained model: {folder}. Next: metaembed eval {folder}")
