"""What a recipe says about one source of training data."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

FormatName = Literal[
    "mmeb", "mmeb-hardneg", "colpali", "visrag", "tevatron", "jsonl", "parquet", "columns"
]


class SourceSettings(BaseModel):
    """One source; `metaembed data check` takes the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """A file, a folder or a hub id."""
    format: FormatName | None = None
    """How its rows are laid out; told from the columns where it is left out."""
    config: str | None = None
    """Which of the subsets in it; a folder has each in a folder or file of that name."""
    split: str | None = None
    """Which split, or part of one: `original`, `train[:-100]`, `[:500]`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    corpus: str | None = None
    """Where a tevatron source has its candidates; default: `corpus` beside the queries."""
    image_dir: Path | None = None
    """What paths of pictures are relative to; default: the folder that the source belongs to."""
    max_rows: PositiveInt | None = None
    """Take a random sample of this many rows."""
    weight: PositiveFloat = 1.0
    """How often a mixture draws from it, relative to the other sources."""
    num_negatives: NonNegativeInt = 1
    """Hard negatives of a row that are used, from the first."""
    name: str | None = None

    @property
    def label(self) -> str:
        """
        >>> SourceSettings(path="TIGER-Lab/MMEB-train", config="CIRR").label
        'MMEB-train/CIRR'
        """
        if self.name is not None:
            return self.name
        parts = (Path(self.path).name or self.path, self.config)
        return "/".join(part for part in parts if part is not None)
