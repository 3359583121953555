"""`metaembed index`: make a folder searchable."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaembed.cli.options import (
    JsonOption,
    ModelOption,
    Sketch,
    Storage,
    command,
    is_index,
    keep_freed_memory,
    quiet_libraries,
    require_folder,
)
from metaembed.errors import IndexMismatchError, MetaEmbedError

if TYPE_CHECKING:
    from metaembed.indexing import Report
    from metaembed.library import Library


def index(
    folder: Annotated[
        Path, typer.Argument(help="Documents, pictures and notes.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the index.", show_default=False)
    ],
    model: ModelOption = None,
    dtype: Annotated[
        Storage | None, typer.Option(help="How a new index stores vectors; default: bfloat16.")
    ] = None,
    sketch: Annotated[
        Sketch | None,
        typer.Option(help="A smaller copy in a new index, for --cascade ~…; default: none."),
    ] = None,
    thumbnails: Annotated[bool, typer.Option(help="Keep small pictures of pages.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Read FOLDER into an index, or bring an index up to date with it.

    Reads PDF, pictures (with OCR where tesseract is installed), text, Markdown, HTML,
    reStructuredText and Python. Running it again encodes only what changed. A folder that is
    called like one of the commands is given as ./verify.
    """
    require_folder(folder)
    quiet_libraries()
    keep_freed_memory()
    from metaembed.indexing import index_folder
    from metaembed.pages import find_files

    if not find_files(folder):
        raise MetaEmbedError(
            f"Folder {str(folder)!r} holds no file that can be read; see `metaembed index --help`."
        )
    library = open_or_create(out, model, dtype=dtype, sketch=sketch)
    try:
        with ProgressBar(disabled=as_json) as update:
            report = index_folder(library, folder, thumbnails=thumbnails, progress=update)
    except KeyboardInterrupt:
        typer.echo("Stopped. What was encoded is kept; the same command goes on.", err=True)
        raise typer.Exit(130) from None
    if report.skipped and not len(library.index):
        source, reason = next(iter(sorted(report.skipped.items())))
        raise MetaEmbedError(f"None of {report.files:,} files could be read; {source}: {reason}")
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    for source, reason in sorted(report.skipped.items()):
        typer.secho(f"skipped     {source}: {reason}", err=True, fg="yellow")
    for source, reason in sorted(report.incomplete.items()):
        typer.secho(f"incomplete  {source}: {reason}", err=True, fg="yellow")
    for line in summary_lines(report, library, out):
        typer.echo(line)
    typer.echo(f'Next: {command()} search {out} "what you look for"')


def open_or_create(
    out: Path,
    model_name: str | None,
    *,
    dtype: Storage | None = None,
    sketch: Sketch | None = None,
) -> "Library":
    """Open the index that a run left, or start one that stores vectors as asked."""
    from metaembed.library import Library
    from metaembed.models import MINI, load_model

    if is_index(out):
        _require_stored(out, dtype=dtype, sketch=sketch)
        return Library.open(out, model_name=model_name)
    name = model_name or MINI
    if Path(name).is_dir():
        name = str(Path(name).resolve())  # found again from wherever the index is opened
    types: dict[str, Any] = {} if dtype is None else {"dtype": dtype.value}
    if sketch is not None:
        types["sketch"] = sketch.value
    return Library.create(out, model=load_model(name), model_name=name, **types)


def _require_stored(out: Path, **asked: Storage | Sketch | None) -> None:
    """Raise when the types asked for are not those of the index."""
    from metaembed.index import Index

    with Index.open(out) as index:
        for option, value in asked.items():
            stored = getattr(index, option)
            if value is not None and value != stored:
                raise IndexMismatchError(
                    f"Index {str(out)!r} has {option} {stored or 'none'}, not {value}, and keeps "
                    f"it. Leave out --{option}, or copy the index: {command()} index shrink {out} "
                    f"--out NEW --{option} {value}."
                )


class ProgressBar:
    """A progress bar over the bytes to read, with passages a second and time left."""

    def __init__(self, *, disabled: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(),
            TextColumn("{task.fields[passages]:,} passages"),
            TextColumn("{task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[source]}"),
            console=Console(stderr=True),
            disable=disabled or not sys.stderr.isatty(),
            transient=True,
        )

    def __enter__(self) -> Any:
        self._bar.start()
        self._task = self._bar.add_task("", passages=0, rate=0.0, source="")
        return self._update

    def _update(self, progress: Any) -> None:
        task = self._bar.tasks[0]
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total or 1,
            passages=progress.passages,
            rate=progress.passages / max(task.elapsed or 0.0, 1e-3),
            source=progress.source[-40:],
        )

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def summary_lines(report: "Report", library: "Library", out: Path) -> list[str]:
    """What a run did and what the index holds now."""
    stats = library.index.stats()
    rate = report.encoded / max(report.seconds, 1e-9)
    return [
        f"{report.files:,} files ({report.unchanged:,} unchanged, {len(report.skipped):,} skipped, "
        f"{report.removed:,} removed); {report.encoded:,} passages encoded in "
        f"{report.seconds:.1f} s ({rate:.0f}/s).",
        f"{out} holds {stats.items:,} passages in {stats.bytes_on_disk / 1e6:.1f} MB.",
    ]
