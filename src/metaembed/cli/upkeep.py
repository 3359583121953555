"""`metaembed index COMMAND`: what keeps an index sound, small and in one piece."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand

from metaembed.cli.options import (
    JsonOption,
    SketchChange,
    Storage,
    command,
    exists,
    parse_budget,
    require_index,
)
from metaembed.errors import MetaEmbedError

if TYPE_CHECKING:
    from metaembed.index import Index
    from metaembed.index.copying import SketchChoice

SHOWN = 3
"""Ids of lost items that are printed; --json has all of them."""

IndexArgument = Annotated[Path, typer.Argument(help="Folder of the index.", show_default=False)]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of the new index.", show_default=False)
]

app = typer.Typer(
    add_completion=False,
    add_help_option=False,
    options_metavar="",
    help="Or look after an index that is there.",
)


class IndexCommand(TyperCommand):
    """`metaembed index FOLDER`, or what `app` does where the first argument is its command."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        commands: Any = typer.main.get_command(app)
        if args and args[0] in commands.commands:
            return commands.make_context(info_name, args, parent, **extra)
        if args and not args[0].startswith("-") and not exists(Path(args[0])):
            for meant in get_close_matches(args[0], commands.commands, n=1):
                raise MetaEmbedError(
                    f"There is no folder {args[0]!r}; did you mean `{command()} index {meant}`?"
                )
        return super().make_context(info_name, args, parent, **extra)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        commands = typer.main.get_command(app)
        context = type(ctx)(commands, info_name=ctx.info_name, parent=ctx.parent)
        commands.format_help(context, formatter)


@app.command()
def verify(index: IndexArgument, as_json: JsonOption = False) -> None:
    """Read every byte of INDEX and compare it with the checksums; exit code 1 if any is wrong."""
    require_index(index)
    from metaembed import ledger

    size = _size(index)
    with working(f"Reading {size}", disabled=as_json) as progress:
        problems = ledger.verify(index, progress=progress)
    if as_json:
        found = {"index": str(index), "sound": not problems, "problems": problems}
        typer.echo(json.dumps(found, ensure_ascii=False))
    elif problems:
        for problem in problems:
            typer.echo(problem)
        typer.echo(f"Next: {command()} index repair {index}", err=True)
    else:
        typer.echo(f"{index} is sound: {size} read.")
    if problems:
        raise typer.Exit(1)


@app.command()
def repair(index: IndexArgument, as_json: JsonOption = False) -> None:
    """Keep what is sound of a damaged INDEX. Damaged files go to the folder `damaged` inside it."""
    require_index(index)
    from metaembed import ledger

    with working("Reading", disabled=as_json):
        done = ledger.repair(index)
    if as_json:
        typer.echo(json.dumps({"index": str(index), **done._asdict()}, ensure_ascii=False))
        return
    for line in done.lines:
        typer.echo(line)
    if done.lost:
        typer.echo(f"Lost {len(done.lost):,} items: {listed(done.lost)}.")
    if done.forgotten:
        typer.echo(f"Next: {command()} index FOLDER --out {index}", err=True)
    if not done.lines:
        typer.echo(f"Nothing to repair: {index} is sound.")


@app.command()
def compact(index: IndexArgument) -> None:
    """Rewrite INDEX as one segment without deleted rows, which it needs space for meanwhile."""
    require_index(index)
    from metaembed.index import Index

    with Index.open(index) as opened:
        before = opened.stats()
        with working("Writing"):
            opened.compact()
        after = opened.stats()
    typer.echo(
        f"{index} had {before.segments:,} segments and {before.deleted:,} deleted rows in "
        f"{before.bytes_on_disk / 1e6:,.1f} MB; now {after.segments:,} and {after.deleted:,} in "
        f"{after.bytes_on_disk / 1e6:,.1f} MB."
    )


@app.command()
def shrink(
    index: IndexArgument,
    out: OutOption,
    budget: Annotated[
        str | None,
        typer.Option("--budget", "-b", metavar="QxC", help="The largest that the copy serves."),
    ] = None,
    dtype: Annotated[
        Storage | None, typer.Option(help="How the copy stores vectors; default: as they are.")
    ] = None,
    sketch: Annotated[
        SketchChange | None, typer.Option(help="The copy's sketch; default: as it is.")
    ] = None,
) -> None:
    """Copy INDEX with fewer vectors or in a smaller type; needs no model and encodes nothing."""
    require_index(index)
    limit = parse_budget(budget)
    from metaembed import ledger

    choice = "keep" if sketch is None else None if sketch is SketchChange.none else sketch.value
    with working("Copying"):
        copied = ledger.shrink(
            index,
            out,
            budget=limit,
            dtype=None if dtype is None else dtype.value,
            sketch=cast("SketchChoice", choice),
        )
    with copied:
        typer.echo(f"{out} {_contents(copied)}; {index} has {_size(index)}.")


@app.command()
def merge(
    indexes: Annotated[list[Path], typer.Argument(help="Folders of indexes.", show_default=False)],
    out: OutOption,
    replace: Annotated[
        bool, typer.Option("--replace", help="Of items with one id take the last.")
    ] = False,
) -> None:
    """Put INDEXES together into a new one, stored as the first of them is."""
    for index in indexes:
        require_index(index)
    from metaembed import ledger

    with working("Copying"):
        merged = ledger.merge(indexes, out, replace=replace)
    with merged:
        typer.echo(f"{out} {_contents(merged)}.")


def listed(ids: Sequence[str]) -> str:
    """
    >>> listed(["a", "b"]), listed("abcde")
    ("'a', 'b'", "'a', 'b', 'c' and 2 more")
    """
    shown = ", ".join(map(repr, ids[:SHOWN]))
    return f"{shown} and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else shown


@contextmanager
def working(what: str, *, disabled: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal that something goes on, for how long it has, and how far it is.

    Yields what to call with what is done, and of how much; it need not be called.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=disabled or not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _contents(index: "Index") -> str:
    stats = index.stats()
    sketch = f" with a sketch in {index.sketch}" if index.sketch else ""
    return (
        f"holds {stats.items:,} items at {index.limit} in {index.dtype}{sketch}, "
        f"{stats.bytes_on_disk / 1e6:,.1f} MB"
    )


def _size(path: Path) -> str:
    from metaembed.index.disk import folder_size

    return f"{folder_size(path) / 1e6:,.1f} MB"
