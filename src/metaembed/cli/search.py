"""`metaembed search`: find pages at a budget."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaembed.cli.options import (
    BudgetOption,
    JsonOption,
    ModelOption,
    parse_budget,
    quiet_libraries,
    require_index,
)
from metaembed.errors import ItemError, MetaEmbedError

if TYPE_CHECKING:
    from metaembed.index.cascade import Cascade
    from metaembed.items import Item
    from metaembed.library import Library, Results


def search(
    index: Annotated[
        Path, typer.Argument(help="Folder written by `metaembed index`.", show_default=False)
    ],
    query: Annotated[
        str | None, typer.Argument(help="What to look for.", show_default=False)
    ] = None,
    budget: BudgetOption = None,
    cascade: Annotated[
        str | None,
        typer.Option(
            metavar="auto|QxC:KEEP,…",
            help="Spend the budget on what cheaper stages keep, as sum16x1:2000,16x4:500.",
        ),
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Count the words of QUERY beside its vectors.")
    ] = False,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 10,
    image: Annotated[
        Path | None, typer.Option(help="A picture to look for, alone or with QUERY.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="JSON lines with `id` and `query`; one answer a line.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only files whose path starts with this.")
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what matches QUERY in an index. Spend more vectors with a larger --budget."""
    asked = parse_budget(budget)
    if (queries is None) == (query is None and image is None):
        raise MetaEmbedError("Give QUERY, --image or both, or else --queries FILE.")
    many = None if queries is None else list(read_queries(queries))
    require_index(index)
    stages = None if cascade is None else _parse_cascade(cascade)
    quiet_libraries()
    from metaembed.library import Library, check_length

    library = Library.open(index, model_name=model)
    how: dict[str, Any] = {
        "budget": asked,
        "cascade": stages,
        "hybrid": hybrid,
        "k": k,
        "filter": None if source is None else {"source": {"prefix": source}},
    }
    if many is not None:
        answer_all(library, many, how)
        return
    item = query_item(library, query, image)
    check_length(library.model, item)
    results = library.search(item, **how)
    if as_json:
        for hit in results.hits:
            typer.echo(json.dumps(hit._asdict(), ensure_ascii=False))
        typer.echo(json.dumps(_spent(results)), err=True)
    else:
        _print(results)


def read_queries(file: Path) -> Iterator[tuple[Any, str]]:
    """Yield `(id, query)` from JSON lines. Raises `ItemError` that names the line."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ItemError(f"Queries cannot be read from {str(file)!r}: {error}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            id, query = entry["id"], entry["query"]
        except (ValueError, KeyError, TypeError):
            raise ItemError(
                f'{file.name}, line {number}: expected an object like {{"id": 1, "query": "…"}}.'
            ) from None
        if not isinstance(query, str) or not isinstance(id, str | int):
            raise ItemError(
                f"{file.name}, line {number}: `query` must be text, `id` text or an integer."
            )
        yield id, query


def query_item(library: "Library", query: str | None, image: Path | None) -> "Item":
    """Make the query; a model that does not see gets the text in the picture instead."""
    from metaembed.images import open_image
    from metaembed.items import Item
    from metaembed.library import fitting

    if image is None:
        return Item.of({"text": query})
    picture = open_image(image)
    if library.model.supports("image"):
        return Item.of({"text": query, "image": picture})
    from metaembed.pages import OCR_HINT, ocr_available, ocr_text

    if not ocr_available():
        raise ItemError(f"This model reads text only, and the picture's text needs OCR: {OCR_HINT}")
    found = ocr_text(picture).strip()
    if not found and query is None:
        raise ItemError(
            f"No text was found in {image.name!r}, and this model reads text only; "
            "describe what you look for in words."
        )
    words = " ".join([*([query] if query else []), *found.split()])
    return Item(text=fitting(library.model, words))


def answer_all(library: "Library", many: list[tuple[Any, str]], how: dict[str, Any]) -> None:
    """Print one JSON object a query: `id`, what was spent, and `hits`, best first."""
    from metaembed.items import Item
    from metaembed.library import check_length

    items = [Item.of({"text": query}) for _, query in many]
    for (id, _), item in zip(many, items, strict=True):
        try:
            check_length(library.model, item)
        except ItemError as error:
            raise ItemError(f"Query {id!r}: {error}") from None
    for (id, _), results in zip(many, library.search_many(items, **how), strict=True):
        hits = [hit._asdict() for hit in results.hits]
        answer = {"id": id, **_spent(results), "hits": hits}
        typer.echo(json.dumps(answer, ensure_ascii=False))


def _parse_cascade(text: str) -> "Cascade | str":
    from metaembed.index.cascade import Cascade

    return text if text == "auto" else Cascade.parse(text)


def _spent(results: "Results") -> dict[str, Any]:
    return {
        "budget": str(results.budget),
        "cascade": None if results.cascade is None else str(results.cascade),
        "hybrid": results.hybrid,
        "encode_ms": round(results.encode_ms, 3),
        "score_ms": round(results.score_ms, 3),
    }


def _print(results: "Results") -> None:
    for hit in results.hits:
        typer.secho(f"{hit.score:7.3f}  {hit.source}", bold=True, nl=False)
        typer.echo(f"  {hit.place}" + (f"  {hit.title}" if hit.title else ""))
        typer.echo(f"         {hit.snippet}")
    if not results.hits:
        typer.echo("Nothing found.")
    by = "" if results.cascade is None else f", cascade {results.cascade}"
    by += ", with words" * results.hybrid
    typer.echo(
        f"budget {results.budget}{by}: encoding {results.encode_ms:.1f} ms, "
        f"scoring {results.score_ms:.1f} ms",
        err=True,
    )
