"""Which files of a folder are the rows of one configuration and split."""

import re
from collections import defaultdict
from pathlib import Path

from metaembed.errors import RecipeError
from metaembed.files import reason_of

_SUFFIXES = (".parquet", ".jsonl")
_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?")
_LFS = b"version https://git-lfs"


def find_files(
    path: Path, *, config: str | None, split: str | None, default: str | None = None
) -> list[Path]:
    """The Parquet or JSON lines files of a source, in order.

    A folder holds them itself, in `data/`, or in a folder or files that are called like the
    configuration; the split is what a file name has before `-00000-of-00001`. Raises
    `RecipeError` that says what there is.
    """
    if path.is_file():
        return [_known(path)]
    files = _of_config(path, config)
    by_split: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_split[_split_of(file)].append(file)
    chosen = by_split[choose_split(list(by_split), split, default=default, of=str(path))]
    kinds = {file.suffix for file in chosen}
    if len(kinds) > 1:
        raise RecipeError(f"{str(path)!r} holds both Parquet and JSON lines; give one file.")
    _require_all_shards(chosen)
    return chosen


def choose_split(
    names: list[str], split: str | None, *, default: str | None = None, of: str
) -> str:
    """Pick the split asked for, or the default, `train`, or the only one."""
    wanted = [default, "train"] if split is None else [split]
    for name in wanted:
        if name in names:
            return name
    if split is None and len(names) == 1:
        return names[0]
    asked = "several splits" if split is None else f"no split {split!r}"
    raise RecipeError(f"{of!r} has {asked}; set split to one of {', '.join(sorted(names))}.")


def _of_config(path: Path, config: str | None) -> list[Path]:
    if config is None:
        files = _tables(path) or _tables(path / "data")
        if files:
            return files
        inside = sorted(folder.name for folder in path.iterdir() if _tables(folder))
        if inside:
            raise RecipeError(
                f"{str(path)!r} has several configurations; set config to one of "
                f"{', '.join(inside[:30])}."
            )
        raise RecipeError(f"{str(path)!r} holds no {' or '.join(_SUFFIXES)} file.")
    if Path(config).is_absolute() or ".." in Path(config).parts:
        raise RecipeError(f"Config {config!r} is not the name of a configuration.")
    files = _tables(path / config) or _tables(path / "data" / config)
    files = files or [
        file for file in _tables(path) if file.stem == config or _split_of(file) == config
    ]
    if not files:
        raise RecipeError(f"{str(path)!r} has no configuration {config!r}.")
    return files


def _tables(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())


def _known(file: Path) -> Path:
    if file.suffix not in _SUFFIXES:
        raise RecipeError(f"{str(file)!r} is neither {' nor '.join(_SUFFIXES)}.")
    return file


def _split_of(file: Path) -> str:
    shard = _SHARD.fullmatch(file.stem)
    return shard["split"] if shard else file.stem


def _require_all_shards(files: list[Path]) -> None:
    shards = [shard for file in files if (shard := _SHARD.fullmatch(file.stem))]
    there = {int(shard["number"]) for shard in shards}
    for shard in shards:
        if missing := sorted(set(range(int(shard["count"]))) - there):
            raise RecipeError(
                f"{str(files[0].parent)!r} lacks part {missing[0]:05} of {shard['count']} of split "
                f"{shard['split']!r}; download it again."
            )


def require_whole(files: list[Path]) -> list[int]:
    """The number of rows of every Parquet file; raises `RecipeError` that names a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = []
    for file in files:
        try:
            with file.open("rb") as opened:
                is_pointer = opened.read(len(_LFS)) == _LFS
            if is_pointer:
                raise RecipeError(
                    f"{str(file)!r} is a Git LFS pointer; fetch it with git lfs pull."
                )
            counts.append(pq.read_metadata(file).num_rows)
        except OSError as error:
            raise RecipeError(f"{str(file)!r} cannot be read: {reason_of(error)}.") from None
        except pa.ArrowException:
            raise RecipeError(
                f"{str(file)!r} is not a whole Parquet file; download it again."
            ) from None
    return counts
