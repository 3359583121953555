"""`metaembed data COMMAND`: what looks after training data."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaembed.cli.options import (
    BudgetOption,
    JsonOption,
    command,
    keep_freed_memory,
    parse_budget,
    quiet_libraries,
)
from metaembed.cli.upkeep import working
from metaembed.errors import RecipeError

if TYPE_CHECKING:
    from metaembed.data.checks import Report
    from metaembed.data.settings import SourceSettings

SHOWN_TEXT = 300
"""Characters of a text that are printed; --json has all of them."""

SourceArgument = Annotated[
    str, typer.Argument(help="A file, a folder or a hub id.", show_default=False)
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="mmeb, mmeb-hardneg, colpali, visrag, tevatron, jsonl, parquet or columns; default: "
        "told from the columns.",
    ),
]
ConfigOption = Annotated[str | None, typer.Option("--config", help="Which subset.")]
SplitOption = Annotated[str | None, typer.Option("--split", help="NAME, or NAME[START:STOP].")]
ImagesOption = Annotated[
    Path | None,
    typer.Option("--image-dir", help="What paths of pictures are relative to."),
]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Check training data and mine hard negatives."
)


@app.command()
def check(
    source: SourceArgument,
    format: FormatOption = None,
    config: ConfigOption = None,
    split: SplitOption = None,
    image_dir: ImagesOption = None,
    negatives: Annotated[int, typer.Option(min=0, help="Hard negatives looked at in a row.")] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Look at this many rows; default: all.")
    ] = None,
    headers: Annotated[
        bool, typer.Option("--headers", help="Read only the headers of pictures: much faster.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what SOURCE holds and what is wrong with it; exit code 1 if anything is broken."""
    settings = new_settings(
        path=source,
        format=format,
        config=config,
        split=split,
        image_dir=image_dir,
        num_negatives=negatives,
    )
    quiet_data_sets()
    from metaembed.data.checks import check_source
    from metaembed.data.sources import open_source

    opened = open_source(settings, keep_empty=True)
    with working("Checking", disabled=as_json) as progress:
        report = check_source(opened, decode=not headers, limit=limit, progress=progress)
    if as_json:
        typer.echo(json.dumps({**asdict(report), "sound": report.is_sound}, ensure_ascii=False))
    else:
        for line in report_lines(report):
            typer.echo(line)
    if not report.is_sound:
        raise typer.Exit(1)


@app.command()
def mine(
    source: SourceArgument,
    model: Annotated[
        str,
        typer.Argument(help="metaembed-mini, a model folder, or a hub id.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON lines file.", show_default=False)],
    format: FormatOption = None,
    config: ConfigOption = None,
    split: SplitOption = None,
    image_dir: ImagesOption = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Use a random sample of this many rows.")
    ] = None,
    budget: BudgetOption = None,
    negatives: Annotated[int, typer.Option(min=1, help="Hard negatives for each query.")] = 4,
    margin: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="A negative scores at most this part below the positive: 0.05 is 95%.",
        ),
    ] = 0.05,
    depth: Annotated[int, typer.Option(min=1, help="Candidates looked at for each query.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Items encoded at a time.")] = 32,
    as_json: JsonOption = False,
) -> None:
    """Add to each row of SOURCE the candidates that MODEL takes for right and that are not.

    Candidates are all positives of the source. A stopped run goes on with the same command.
    """
    settings = new_settings(
        path=source,
        format=format,
        config=config,
        split=split,
        image_dir=image_dir,
        max_rows=max_rows,
    )
    quiet_libraries()
    quiet_data_sets()
    keep_freed_memory()
    from metaembed.data.sources import open_source
    from metaembed.models import load_model
    from metaembed.negatives import Mining, mine_negatives

    plan = Mining(budget=parse_budget(budget), num_negatives=negatives, margin=margin, depth=depth)
    opened = open_source(settings)
    loaded = load_model(model)
    try:
        with working("Mining", disabled=as_json) as progress:
            done = mine_negatives(
                opened, loaded, out, plan=plan, batch_size=batch_size, progress=progress
            )
    except KeyboardInterrupt:
        typer.echo("Stopped. What was done is kept; the same command goes on.", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps({"out": str(out), **done._asdict()}))
        return
    typer.echo(
        f"{out} has {done.rows:,} rows, {done.without:,} of them without a hard negative; "
        f"{done.negatives / max(done.rows, 1):.1f} a row from {done.candidates:,} candidates."
    )
    typer.echo(f"Next: {command()} data check {out}")


def new_settings(**given: Any) -> "SourceSettings":
    """Settings of a source from options, with one line for what is wrong with them."""
    from pydantic import ValidationError

    from metaembed.data.settings import SourceSettings

    try:
        return SourceSettings(**given)
    except ValidationError as error:
        wrong = "; ".join(
            f"--{str(detail['loc'][0]).replace('_', '-')}: {detail['msg']}"
            for detail in error.errors()
        )
        raise RecipeError(f"{wrong}.") from None


def quiet_data_sets() -> None:
    """Keep the progress bars of `datasets` out of the output, where it is installed."""
    try:
        import datasets
    except ImportError:
        return
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()


def report_lines(report: "Report") -> list[str]:
    """The report for people."""
    part = "" if report.checked == report.rows else f", the first {report.checked:,} checked"
    lines = [f"{report.source} ({report.format}): {report.rows:,} rows{part}", ""]
    lines += [_row(side, counts) for side, counts in report.modalities.items()]
    lines.append(_row("negatives a row", report.negatives))
    lines += [_row(f"{s} characters", counts) for s, counts in report.text_lengths.items()]
    lines += [_row(f"{s} pixels", counts) for s, counts in report.picture_sizes.items()]
    lines += ["", *_remarks(report), ""]
    for number, row in enumerate(report.first, start=1):
        lines += [f"row {number}", *(f"  {name:12} {_shown(side)}" for name, side in row.items())]
    lines.append("")
    lines += [f"{one.kind}: {one.where}: {one.what}" for one in report.problems]
    found = ", ".join(f"{count:,} × {kind}" for kind, count in report.faults.items())
    lines.append(f"Broken: {found}." if found else "Nothing is broken.")
    return lines


def _row(name: str, counts: dict[Any, int]) -> str:
    return f"{name:20} " + ", ".join(f"{what}: {count:,}" for what, count in counts.items())


def _remarks(report: "Report") -> list[str]:
    remarks = {
        "rows occur more than once": report.repeated_rows,
        "rows have a query that occurred before": report.repeated_queries,
        "rows have a positive that occurred before": report.repeated_positives,
        "rows have their query as positive": report.answered_by_itself,
        "sides have an image token without a picture; it is deleted": report.orphan_tokens,
        "texts hold special tokens of a model": report.model_tokens,
        "pictures have a side under 28 pixels and are enlarged": report.small_pictures,
    }
    return [f"{count:,} {what}" for what, count in remarks.items() if count]


def _shown(side: dict[str, Any]) -> str:
    text = side.get("text")
    parts = [f"[{side['picture']}]"] if "picture" in side else []
    if text is not None:
        cut = text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}…"
        parts.append(repr(cut))
    return " ".join(parts) or "(empty)"
