"""Opening files without being held up by what they are."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from metaembed.errors import PageError

# A FIFO or device must not block the open that finds out what it is. Windows has neither flag's
# counterpart and needs to be told that the file is binary.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular, non-empty file; anything else raises `PageError` at once.

    Pipes, devices and folders are refused without waiting for them.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError) as error:
        raise PageError(f"The file cannot be opened: {reason_of(error)}.") from None
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
            raise PageError(f"The file cannot be read: {reason_of(error)}.") from None
    if len(content) > limit:
        raise PageError(f"The file is larger than {limit >> 20} MiB; split it first.")
    return content


def reason_of(error: Exception) -> str:
    """Say why in a few words, without the path that `str(error)` has."""
    if isinstance(error, OSError):
        number = error.errno or 0
        return {
            errno.ENOENT: "it does not exist",
            errno.ENOTDIR: "it is not a folder",
            errno.EACCES: "permission denied",
        }.get(number, (error.strerror or type(error).__name__).lower())
    return str(error)
