"""The commands and how deliberate errors end: one line, exit code 1."""

import typer

from metaembed.cli import data, demo, evaluate, index, info, plan, search, train, upkeep
from metaembed.errors import MetaEmbedError

app = typer.Typer(
    no_args_is_help=True,
    help="Multimodal retrieval whose cost you choose at query time.",
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
app.command("index", cls=upkeep.IndexCommand)(index.index)
app.command("search")(search.search)
app.command("info")(info.info)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("merge-adapter")(train.merge_adapter)
app.command("eval")(evaluate.evaluate)
app.add_typer(data.app, name="data")
app.add_typer(plan.app, name="plan")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except MetaEmbedError as error:
        typer.secho(f"Error: {error}", err=True, fg="red")
        raise SystemExit(1) from None
