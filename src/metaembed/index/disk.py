"""Writing that survives a crash, and the lock that keeps writers apart."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metaembed.errors import IndexFormatError, one_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


REPAIR = "Run `metaembed index repair` on it, restore the folder or rebuild the index."


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


class DamageError(IndexFormatError):
    """What is wrong with an index, apart from what to do about it."""

    problem: str


@contextmanager
def translated(of: str, *, is_writing: bool = False) -> Iterator[None]:
    """Turn what the operating system refuses into `IndexFormatError`: all of it passes here."""
    try:
        yield
    except OSError as error:
        raise (unwritable if is_writing else unreadable)(of, error) from None


def absolute(path: Path | str) -> Path:
    """Raises `IndexFormatError` where the working folder is gone."""
    with translated(Path(path).name):
        return Path(path).absolute()


def found_at(path: Path, *, of: str) -> os.stat_result | None:
    """What is there, or none; `IndexFormatError` where the operating system does not tell."""
    with translated(of):
        try:
            return path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None


def require_folder(path: Path, *, of: str) -> None:
    found = found_at(path, of=of)
    if found is None or not stat.S_ISDIR(found.st_mode):
        raise damaged(of, f"its folder {path.name!r} is missing")


def require_plain(path: Path, *, of: str, largest: int | None = None) -> None:
    """Raise `IndexFormatError` unless there is nothing at `path` or an ordinary file.

    Opening a pipe would wait for ever, and a file of more than `largest` bytes is not what it says.
    """
    found = found_at(path, of=of)
    if found is None:
        return
    if not stat.S_ISREG(found.st_mode):
        raise beyond_repair(of, f"{path.name} is not a file")
    if largest is not None and found.st_size > largest:
        raise beyond_repair(of, f"{path.name} has {found.st_size} bytes")


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
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found = Path(parent, name).stat()
                size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size


@contextmanager
def write_lock(path: Path, *, of: str) -> Iterator[None]:
    """Hold the lock file at `path`; raise at once when another writer holds it.

    Whatever the operating system refuses meanwhile is said to keep the index from being written.

    The operating system lets go of the lock when its process ends, however it ends. Where `fcntl`
    is missing this does nothing: there the catalog's own lock, which a writer holds as well, keeps
    a second writer out, after a wait.
    """
    require_plain(path, of=of)
    with translated(of, is_writing=True), path.open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise IndexFormatError(
                    f"Index {of!r} is being written by another process or thread. "
                    "Wait until it has finished, then try again."
                ) from None
        yield


def unwritable(of: str, error: OSError) -> IndexFormatError:
    reason = error.strerror or type(error).__name__
    return IndexFormatError(
        f"Index {of!r} cannot be written: {reason}. Check the permissions and the free space."
    )


def unreadable(of: str, error: OSError) -> IndexFormatError:
    reason = error.strerror or type(error).__name__
    if isinstance(error.filename, str):
        reason += f" ({Path(error.filename).name})"
    return IndexFormatError(f"Index {of!r} cannot be read: {reason}. Check the permissions.")


def problem_line(of: str, problem: str | IndexFormatError) -> str:
    """What `verify` says: the problem without advice."""
    if isinstance(problem, IndexFormatError) and not isinstance(problem, DamageError):
        return str(problem)
    text = problem.problem if isinstance(problem, DamageError) else problem
    return f"Index {of!r}: {one_line(text)}."


def damaged(of: str, problem: str, *, advice: str = REPAIR) -> DamageError:
    problem = one_line(problem)
    error = DamageError(f"Index {of!r} is damaged: {problem}. {advice}")
    error.problem = problem
    return error


def beyond_repair(of: str, problem: str) -> DamageError:
    return damaged(of, problem, advice="Restore the folder or rebuild the index.")
