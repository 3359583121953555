"""`metaembed demo`: everything once, on text that is on this machine already."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaembed.cli.options import ModelOption, command, keep_freed_memory, quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Callable

    from metaembed.budget import Budget
    from metaembed.demo import Summary


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the documents and the index go.")
    ] = Path("metaembed-demo"),
    model: ModelOption = None,
) -> None:
    """Index this Python's documentation and ask it questions at three budgets."""
    quiet_libraries()
    keep_freed_memory()
    from metaembed import demo as content
    from metaembed.cli.index import ProgressBar, open_or_create, summary_lines
    from metaembed.indexing import index_folder

    docs, index = out / "docs", out / "index"
    typer.echo(f"Writing the standard library's docstrings to {docs} …")
    content.write_documentation(docs)
    library = open_or_create(index, model)
    with ProgressBar() as update:
        report = index_folder(library, docs, progress=update)
    for line in summary_lines(report, library, index):
        typer.echo(line)
    content.ask(library, content.BUDGETS[0])  # the first search also reads the index from disk
    summaries = [content.ask(library, budget) for budget in content.BUDGETS]
    for number in range(content.SHOWN):
        _print_question(summaries, number)
    _print_table(summaries, library.index.bytes_per_item)
    name = command()
    typer.echo(
        "\nNext, ask something yourself, or index a folder of your own:\n"
        f'  {name} search {index} "sort a list by a key" --budget 4x8 -k 3\n'
        f"  {name} index ~/Documents --out documents-index\n"
        f'  {name} search documents-index "what you look for"'
    )


def _print_question(summaries: "list[Summary]", number: int) -> None:
    question = summaries[0].answers[number].question
    typer.secho(f"\n{question.text}", bold=True, nl=False)
    typer.echo(f"  (the answer is in {question.answer})")
    for summary in summaries:
        hit = summary.answers[number].hits[0]
        right = "right" if summary.answers[number].rank == 1 else "     "
        typer.echo(f"  {summary.budget!s:>5}  {right}  {hit.score:6.2f}  {hit.title}")
    typer.echo(f"         {hit.snippet}")


def _print_table(summaries: "list[Summary]", bytes_per_item: "Callable[[Budget], int]") -> None:
    count = len(summaries[0].answers)
    typer.echo(f"\n{count} questions with known answers, asked at three budgets:\n")
    typer.echo("budget   right first   mean rr   bytes an item   encoding ms   scoring ms")
    for summary in summaries:
        typer.echo(
            f"{summary.budget!s:>6}   {summary.right_first:>4} of {count:<4}   "
            f"{summary.mean_reciprocal_rank:7.3f}   {bytes_per_item(summary.budget):>13,}   "
            f"{summary.encode_ms:11.1f}   {summary.score_ms:10.1f}"
        )
