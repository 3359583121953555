"""What several commands share: options, quiet libraries, reading of arguments."""

import os
import shutil
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from metaembed.budget import Budget
from metaembed.errors import MetaEmbedError
from metaembed.files import reason_of

BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", "-b", metavar="QxC", help="Vectors per side, like 4x8; default: all."),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="metaembed-mini, a model folder, or a hub id."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


class Storage(StrEnum):
    """How vectors are stored; int4 is for those that only the largest budget uses, beside int8."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"
    int8 = "int8"
    int4 = "int4"


class Sketch(StrEnum):
    """A smaller copy of all vectors, for the first stages of a search."""

    int8 = "int8"
    int4 = "int4"
    binary = "binary"


class SketchChange(StrEnum):
    """What a copy has for a sketch."""

    int8 = "int8"
    int4 = "int4"
    binary = "binary"
    none = "none"


def command() -> str:
    """What to type for this program: its name where that finds it, else its path."""
    called = Path(sys.argv[0])
    found = shutil.which("metaembed")
    if called.name != "metaembed" or (found and Path(found).resolve() == called.resolve()):
        return "metaembed"
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def parse_budget(text: str | None) -> Budget | None:
    return None if text is None else Budget.parse(text)


def quiet_libraries() -> None:
    """Keep the loading bars and notices of the libraries out of the commands' output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.secho(f"Warning: {message}", err=True, fg="yellow")


def keep_freed_memory() -> None:
    """Let the C library keep memory that tensors gave back instead of returning it.

    Encoding allocates and frees the same hundreds of megabytes batch after batch, and fetching
    them from the kernel anew costs up to half of the time on virtual machines. glibc only.
    """
    import ctypes

    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):
        pass


def is_index(path: Path) -> bool:
    """Tell an index without importing what opens it."""
    return exists(path / "manifest.json")


def require_index(path: Path) -> None:
    """Raise unless there is an index."""
    if not is_index(path):
        raise MetaEmbedError(
            f"There is no index at {str(path)!r}; make one with `metaembed index`."
        )


def require_folder(folder: Path) -> Path:
    """Return an existing folder, or raise with what is wrong."""
    if not exists(folder):
        raise MetaEmbedError(f"There is no folder {str(folder)!r}.")
    if not folder.is_dir():
        raise MetaEmbedError(f"{str(folder)!r} is a file; give the folder that holds it.")
    return folder


def exists(path: Path) -> bool:
    """Raises `MetaEmbedError` where the system does not tell."""
    try:
        return path.exists()
    except OSError as error:
        raise MetaEmbedError(
            f"Whether there is a {str(path)!r} cannot be told: {reason_of(error)}. "
            "Check the path and the permissions."
        ) from None
