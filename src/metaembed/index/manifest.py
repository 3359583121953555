"""What an index is made of, and the files that make it.

Format version 2 is a folder with

    manifest.json                         this file's `Manifest`: shape, types and model; constant
    catalog.sqlite                        which rows are live, with their ids and metadata
    segments/<number>/plane-<a>-<b>.npy   vectors a to b (b excluded) of every row of a segment, and
                                          beside it what else `layout` lists
    lock                                  locked by the one process that is writing

A plane is a range of the prefix of an item's vectors, so that a budget reads only its own bytes.
Nothing that is stored in these files is used as a path, except integers.

Version 1 is the same without scales, sketches and types other than float16 and float32. Its
catalog has other tables (see `legacy`); the first writer brings them to version 2, and the manifest
stays as it is.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from metaembed import storage
from metaembed.budget import Budget, parse_groups
from metaembed.errors import IndexFormatError, one_line
from metaembed.index.disk import replace_file, require_plain, unreadable
from metaembed.index.layout import Plane
from metaembed.storage import StorageType

FORMAT = "metaembed-index"
MAX_MANIFEST_BYTES = 2**20
FORMAT_VERSION = 2

IndexType = Literal["float32", "float16", "bfloat16", "int8", "int4"]
"""How vectors are stored; int4 means the last plane, with the planes before it in int8."""

SketchType = Literal["int8", "int4", "binary"]

BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4, "binary": 1}

BudgetText = Annotated[Budget, PlainValidator(Budget.parse), PlainSerializer(str)]


class Manifest(BaseModel):
    """The constant part of an index: written once, when it is created."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["metaembed-index"]
    format_version: Literal[1, 2]
    dim: int = Field(ge=1, le=2**16)
    groups: tuple[BudgetText, ...]
    """Nested, smallest first; the last one says how many vectors an item has."""
    dtype: IndexType
    sketch: SketchType | None = None
    """A second, smaller copy of all vectors, which only the first stages of a search read."""
    model: str
    fingerprint: str
    planes: tuple[tuple[int, int], ...]
    """Prefix ranges `[start, stop)` without gaps."""

    @model_validator(mode="after")
    def _check_planes(self) -> "Manifest":
        limit = parse_groups(self.groups)[-1].candidate
        edges = [0, *(stop for _, stop in self.planes)]
        ascending = all(low < high for low, high in pairwise(edges))
        if not ascending or [start for start, _ in self.planes] != edges[:-1] or edges[-1] != limit:
            raise ValueError(f"the planes {self.planes} do not divide {limit} vectors")
        return self

    @model_validator(mode="after")
    def _check_types(self) -> "Manifest":
        is_plain = self.dtype in ("float16", "float32") and self.sketch is None
        if self.format_version == 1 and not is_plain:
            raise ValueError("format version 1 has float16 or float32 and no sketch")
        if self.sketch is not None and BITS[self.sketch] >= BITS[self.dtype]:
            raise ValueError(f"a sketch of {self.sketch} is not smaller than {self.dtype}")
        return self

    @property
    def limit(self) -> Budget:
        return self.groups[-1]

    @property
    def plane_dtypes(self) -> tuple[StorageType, ...]:
        """The storage type of each plane."""
        first: StorageType = "int8" if self.dtype == "int4" else self.dtype
        return (*[first] * (len(self.planes) - 1), self.dtype)

    @property
    def layout(self) -> tuple[Plane, ...]:
        return tuple(
            Plane(start, stop, self.dim, dtype, self.sketch)
            for (start, stop), dtype in zip(self.planes, self.plane_dtypes, strict=True)
        )

    def num_bytes(self, num_vectors: int) -> int:
        """Bytes that the first `num_vectors` vectors of one item take, scales included."""
        return sum(
            _width(plane, num_vectors) * storage.num_bytes(plane.dtype, self.dim)
            for plane in self.layout
        )

    def sketch_bytes(self, num_vectors: int) -> int:
        """As `num_bytes`, of the sketch; 0 without one."""
        if self.sketch is None:
            return 0
        return sum(
            _width(plane, num_vectors) * storage.num_bytes(self.sketch, self.dim)
            for plane in self.layout
        )


def new_manifest(
    *,
    dim: int,
    groups: Sequence[Budget | str],
    dtype: str,
    sketch: str | None,
    model: str,
    fingerprint: str,
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
        "sketch": sketch,
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
    require_plain(path, of=folder.name, largest=MAX_MANIFEST_BYTES)
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


def _width(plane: Plane, num_vectors: int) -> int:
    return max(0, min(plane.stop, num_vectors) - plane.start)


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return " ".join(f"{place}: {first['msg']}".split()) if place else first["msg"]


def _damaged(folder: Path, problem: str) -> IndexFormatError:
    return IndexFormatError(
        f"Index {folder} is damaged: manifest.json is not valid ({one_line(problem, limit=200)}). "
        "Restore the file or rebuild the index."
    )
