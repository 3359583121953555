"""`metaembed info`: what an index or a model is and costs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from metaembed.cli.options import JsonOption, is_index, quiet_libraries

BY_BUDGET = {
    "bytes_per_item": "bytes an item at ",
    "sketch_bytes_per_item": "bytes of its sketch at ",
}


def info(
    what: Annotated[
        str,
        typer.Argument(
            metavar="INDEX|MODEL", help="An index folder, or a model.", show_default=False
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Tell the model, groups, items and bytes of an index, or describe a model."""
    found = _of_index(Path(what)) if is_index(Path(what)) else _of_model(what)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            for budget, count in value.items():
                typer.echo(f"{BY_BUDGET[name] + budget:31} {count:,}")
        else:
            shown = ", ".join(value) if isinstance(value, list) else value
            typer.echo(f"{name.replace('_', ' '):31} {'none' if shown is None else shown}")


def _of_index(path: Path) -> dict[str, Any]:
    from metaembed.index import Index
    from metaembed.kernels import kernel_name
    from metaembed.storage import num_bytes

    with Index.open(path) as index:
        stats, sketch = index.stats(), index.sketch
        bytes_of_sketch = num_bytes(sketch, index.dim) if sketch else 0
        return {
            "index": str(path),
            "model": index.model,
            "fingerprint": index.fingerprint,
            "groups": [str(group) for group in index.groups],
            "dim": index.dim,
            "dtype": index.dtype,
            "sketch": sketch,
            "items": stats.items,
            "segments": stats.segments,
            "deleted_rows": stats.deleted,
            "bytes_on_disk": stats.bytes_on_disk,
            "bytes_per_item": {str(g): index.bytes_per_item(g) for g in index.groups},
            "sketch_bytes_per_item": {
                str(g): bytes_of_sketch * g.candidate for g in index.groups if sketch
            },
            "kernel": kernel_name(),
        }


def _of_model(name: str) -> dict[str, Any]:
    quiet_libraries()
    from metaembed.models import load_model

    model = load_model(name)
    dim = model.get_embedding_dimension()
    return {
        "model": name,
        "backbone": model[0].config.model_type,
        "fingerprint": model.fingerprint,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "reads": [modality for modality in ("text", "image") if model.supports(modality)],
        "tokens_of_an_item": model[0].item_length,
        "groups": [str(group) for group in model.groups],
        "dim": dim,
        "bytes_per_item": {str(g): 2 * dim * g.candidate for g in model.groups},
    }
