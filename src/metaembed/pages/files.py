"""Finding files in a folder without being led astray."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from metaembed.errors import PageError
from metaembed.files import reason_of

log = logging.getLogger(__name__)

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})


def walk_files(folder: Path, *, wanted: Callable[[Path], bool]) -> list[Path]:
    """List the wanted regular files below `folder`, sorted, each once.

    Hidden files and folders, `__pycache__` and `node_modules` are left out. A link to a file is
    followed when the file lies in the folder and is not listed itself; links to folders are not,
    since what lies in the folder is found at its own place. A subfolder that cannot be listed is
    logged. Raises `PageError` when `folder` is not a folder that can be listed.
    """
    try:
        os.scandir(folder).close()
    except (OSError, ValueError) as error:
        raise PageError(f"The folder cannot be listed: {reason_of(error)}.") from None
    root = folder.resolve()
    files: list[Path] = []
    links: list[Path] = []
    for path in filter(wanted, _walk(folder)):
        (links if path.is_symlink() else files).append(path)
    found = {path.resolve() for path in files}
    for link in sorted(links):
        target = _target(link)
        if target is not None and target.is_relative_to(root) and target not in found:
            found.add(target)
            files.append(link)
    return sorted(files)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_log_unlisted):
        folders[:] = [name for name in folders if not _is_skipped(name)]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _is_skipped(folder_name: str) -> bool:
    return folder_name.startswith(".") or folder_name in _SKIPPED_FOLDERS


def _log_unlisted(error: OSError) -> None:
    log.warning("Folder %s is left out: %s.", error.filename, reason_of(error))


def _target(link: Path) -> Path | None:
    try:
        return link.resolve(strict=True)
    except (OSError, RuntimeError):  # a link that is gone or leads to itself
        return None
