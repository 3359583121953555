"""Writing that survives a crash, and the lock that keeps writers apart."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metaembed.errors import IndexFormatError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def require_plain(path: Path, *, of: str, largest: int | None = None) -> None:
    """Raise `IndexFormatError` unless there is nothing at `path` or an ordinary file.

    Opening a pipe would wait for ever, and a file of more than `largest` bytes is not what it says.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unreadable(of, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise damaged(of, f"{path.name} is not a file")
    if largest is not None and found.st_size > largest:
        raise damaged(of, f"{path.name} has {found.st_size} bytes")


def sync_file(path: Path) -> None:
    """Make what was written to a closed file durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names inside `folder` durable. Windows cannot, and does not need to."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def max_open_files() -> int:
    """How many files a process may have open; no more than a few thousand."""
    try:
        import resource
    except ImportError:  # Windows
        return 512
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft < 0 else min(soft, 4096)  # negative: no limit


def folder_size(folder: Path) -> int:
    """Bytes in all files below `folder`; files that vanish meanwhile count as nothing."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                size += path.stat().st_size
    return size


@contextmanager
def write_lock(path: Path, *, of: str) -> Iterator[None]:
    """Hold the lock file at `path`; raise at once when another writer holds it.

    The operating system lets go of the lock when its process ends, however it ends. Where `fcntl`
    is missing this does nothing: there the catalog's own lock, which a writer holds as well, keeps
    a second writer out, after a wait.
    """
    require_plain(path, of=of)
    try:
        file = path.open("ab")
    except OSError as error:
        raise unwritable(of, error) from None
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise IndexFormatError(
                    f"Index {of!r} is being written by another process or thread. "
                    "Wait until it has finished, then try again."
                ) from None
            except OSError as error:
                raise unwritable(of, error) from None
        yield


def unwritable(of: str, error: OSError) -> IndexFormatError:
    reason = error.strerror or type(error).__name__
    return IndexFormatError(
        f"Index {of!r} cannot be written: {reason}. Check the permissions and the free space."
    )


def unreadable(of: str, error: OSError) -> IndexFormatError:
    reason = error.strerror or type(error).__name__
    return IndexFormatError(f"Index {of!r} cannot be read: {reason}. Check the permissions.")


def damaged(of: str, problem: str) -> IndexFormatError:
    return IndexFormatError(
        f"Index {of!r} is damaged: {problem}. Restore the folder or rebuild the index."
    )
