"""The folder of an index: the names in it, and how it comes to be."""

import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from metaembed.errors import IndexFormatError
from metaembed.index.catalog import Catalog
from metaembed.index.disk import sync_folder, translated
from metaembed.index.manifest import Manifest, write_manifest
from metaembed.index.segments import Segments

MANIFEST, CATALOG, SEGMENTS, LOCK = "manifest.json", "catalog.sqlite", "segments", "lock"

Fill = Callable[[Catalog, Segments], None]


def create_folder(path: Path, manifest: Manifest, fill: Fill | None = None) -> None:
    """Make an index, with what `fill` puts into it, or none at all.

    Raises `IndexFormatError` when `path` is a file or a folder with anything in it.
    """
    with translated(path.name, is_writing=True):
        _create(path, manifest, fill)


def _create(path: Path, manifest: Manifest, fill: Fill | None) -> None:
    existed = path.is_dir()
    try:
        new_parents = [path.parent]  # folders that get a new name in them
        while not new_parents[-1].exists():
            new_parents.append(new_parents[-1].parent)
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise FileExistsError
    except (FileExistsError, NotADirectoryError):
        raise IndexFormatError(
            f"{path} exists already and is not an empty folder. "
            "Choose another path, or open it if it is an index."
        ) from None
    try:
        _fill_folder(path, manifest, fill)
        for parent in new_parents:
            sync_folder(parent)
    except BaseException:
        _remove_created(path, keep_folder=existed)
        raise


def _fill_folder(path: Path, manifest: Manifest, fill: Fill | None) -> None:
    (path / SEGMENTS).mkdir()
    Catalog.create(path / CATALOG)
    if fill is not None:
        with closing(Catalog(path / CATALOG)) as catalog, catalog.writing():
            fill(catalog, Segments(path / SEGMENTS, manifest))
    # Last: a folder without a manifest is not an index yet.
    write_manifest(path / MANIFEST, manifest)


def _remove_created(path: Path, *, keep_folder: bool) -> None:
    """Take back what was made."""
    shutil.rmtree(path / SEGMENTS, ignore_errors=True)
    with suppress(OSError):
        for name in (MANIFEST, f"{MANIFEST}.tmp", CATALOG, f"{CATALOG}-journal"):
            (path / name).unlink(missing_ok=True)
        if not keep_folder:
            path.rmdir()
