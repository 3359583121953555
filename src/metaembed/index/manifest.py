"""What an index is made of, and the files that make it.

Format version 1 is a folder with

    manifest.json                         this file's `Manifest`: shape, groups and model; constant
    catalog.sqlite                        which rows are live, with their ids and metadata
    segments/<number>/plane-<a>-<b>.npy   vectors a to b (b excluded) of every row of a segment
    lock                                  locked by the one process that is writing

A plane is a range of the prefix of an item's vectors, so that a budget reads only its own bytes.
Nothing that is stored in these files is used as a path, except integers.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from metaembed.budget import Budget, parse_groups
from metaembed.errors import IndexFormatError
from metaembed.index.disk import replace_file, unreadable

FORMAT = "metaembed-index"
FORMAT_VERSION = 1

BudgetText = Annotated[Budget, PlainValidator(Budget.parse), PlainSerializer(str)]


class Manifest(BaseModel):
    """The constant part of an index: written once, when it is created."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["metaembed-index"]
    format_version: Literal[1]
    dim: int = Field(ge=1, le=2**16)
    groups: tuple[BudgetText, ...]
    """Nested, smallest first; the last one says how many vectors an item has."""
    dtype: Literal["float16", "float32"]
    model: str
    fingerprint: str
    planes: tuple[tuple[int, int], ...]
    """Prefix ranges `[start, stop)` without gaps, one file each per segment."""

    @model_validator(mode="after")
    def _check_planes(self) -> "Manifest":
        limit = parse_groups(self.groups)[-1].candidate
        edges = [0, *(stop for _, stop in self.planes)]
        ascending = all(low < high for low, high in pairwise(edges))
        if not ascending or [start for start, _ in self.planes] != edges[:-1] or edges[-1] != limit:
            raise ValueError(f"the planes {self.planes} do not divide {limit} vectors")
        return self

    @property
    def limit(self) -> Budget:
        return self.groups[-1]

    @property
    def stored_dtype(self) -> "np.dtype[Any]":
        """Little-endian on every machine, so that an index can be copied between them."""
        return np.dtype(self.dtype).newbyteorder("<")

    def num_bytes(self, num_vectors: int) -> int:
        """Bytes that the first `num_vectors` vectors of one item take."""
        return num_vectors * self.dim * self.stored_dtype.itemsize


def new_manifest(
    *, dim: int, groups: Sequence[Budget | str], dtype: str, model: str, fingerprint: str
) -> Manifest:
    """Describe a new index, with one plane between the candidate sizes of consecutive groups."""
    nested = parse_groups(groups)
    edges = [0, *sorted({group.candidate for group in nested})]
    fields = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dim": dim,
        "groups": nested,
        "dtype": dtype,
        "model": model,
        "fingerprint": fingerprint,
        "planes": tuple(pairwise(edges)),
    }
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        raise IndexFormatError(
            f"An index cannot be created like this: {_first_problem(error)}"
        ) from None


def read_manifest(path: Path) -> Manifest:
    """Read `manifest.json`; `IndexFormatError` when it is missing, newer or damaged."""
    folder = path.parent
    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        raise IndexFormatError(
            f"{folder} is not an index: it has no {path.name}. "
            "Give the folder of an index, or create one."
        ) from None
    except OSError as error:
        raise unreadable(folder.name, error) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, str(error)) from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise _damaged(folder, f"its format is not {FORMAT!r}")
    version = fields.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise IndexFormatError(
            f"Index {folder} has format version {version} and this metaembed reads up to "
            f"{FORMAT_VERSION}. Upgrade metaembed."
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise _damaged(folder, _first_problem(error)) from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    replace_file(path, manifest.model_dump_json(indent=2).encode() + b"\n")


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return " ".join(f"{place}: {first['msg']}".split()) if place else first["msg"]


def _damaged(folder: Path, problem: str) -> IndexFormatError:
    return IndexFormatError(
        f"Index {folder} is damaged: manifest.json is not valid ({' '.join(problem.split())}). "
        "Restore the file or rebuild the index."
    )
