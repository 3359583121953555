"""Finding files in a folder and opening them without being held up or led astray."""

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from metaembed.errors import PageError

log = logging.getLogger(__name__)

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})
# A FIFO or device must not block the open that finds out what it is. Windows has neither flag's
# counterpart and needs to be told that the file is binary.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


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
        raise PageError(f"The folder cannot be listed: {_reason(error)}.") from None
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


def open_regular(path: Path) -> BinaryIO:
    """Open a regular, non-empty file; anything else raises `PageError` at once.

    Pipes, devices and folders are refused without waiting for them.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError) as error:
        raise PageError(f"The file cannot be opened: {_reason(error)}.") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PageError("This is not a regular file; only regular files are read.")
        file = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    return file


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; raises `PageError` otherwise."""
    with open_regular(path) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise PageError(f"The file cannot be read: {_reason(error)}.") from None
    if len(content) > limit:
        raise PageError(f"The file is larger than {limit >> 20} MiB; split it first.")
    return content


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
    log.warning("Folder %s is left out: %s.", error.filename, _reason(error))


def _target(link: Path) -> Path | None:
    try:
        return link.resolve(strict=True)
    except (OSError, RuntimeError):  # a link that is gone or leads to itself
        return None


def _reason(error: Exception) -> str:
    """Say why in a few words, without the path that `str(error)` has."""
    if isinstance(error, OSError):
        number = error.errno or 0
        return {
            errno.ENOENT: "it does not exist",
            errno.ENOTDIR: "it is not a folder",
            errno.EACCES: "permission denied",
        }.get(number, (error.strerror or type(error).__name__).lower())
    return str(error)
