"""Reading files in a process of their own, since what decodes them may hang or crash."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaembed.errors import PageError
from metaembed.files import reason_of
from metaembed.pages.page import Page
from metaembed.pages.reader_process import MAX_MEMORY, receive, send, serve

if TYPE_CHECKING:
    from PIL import Image

_START_SECONDS = 60.0  # for Python to start and import, on a busy machine with a slow disk
_END_SECONDS = 5.0  # until an ended process is gone
_REMEDY = "save it anew with another program, or leave it out"
_start_lock = threading.Lock()


class Reader:
    """Reads files like `read_pages`, out of reach of what they may do to the process.

    One child process reads one file at a time. It starts with the first file and anew after a
    file that held it up for longer than `page_seconds` at one page, or crashed it. It reads ahead
    of the caller by one page and what fits the pipe between them, 64 KiB on most systems. For use
    in one thread.
    """

    def __init__(self, *, page_seconds: float = 120.0) -> None:
        self._page_seconds = page_seconds
        self._child: _Child | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child process; another file starts a new one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def read_pages(self, path: Path, *, images: bool = False, ocr: bool = True) -> Iterator[Page]:
        """Read a file page by page, as `metaembed.pages.read_pages` does.

        Raises `PageError` also where a page takes too long or the child process dies of it. The
        time that the caller takes for a page does not count. Reading another file breaks off one
        that is not read to its end.
        """
        child = self._idle_child()
        try:
            child.request(path, images=images, ocr=ocr)
            while (page := child.next_page()) is not None:
                yield page
                if child.has_ended:
                    raise PageError("Reading was broken off: its reader was closed or used anew.")
        finally:
            if not child.is_idle:
                child.end()

    def _idle_child(self) -> "_Child":
        if self._child is None or not self._child.is_ready():
            self.close()
            try:
                self._child = _Child(self._page_seconds)
            except OSError as error:
                raise PageError(
                    f"No process to read in can be started: {reason_of(error)}."
                ) from None
            self._child.await_start()
        return self._child


class _Child:
    """A process that runs `serve`, and the state of what it was asked."""

    def __init__(self, page_seconds: float) -> None:
        self.is_idle = False
        self.has_ended = False
        self._page_seconds = page_seconds
        self._last_place = ""
        context = multiprocessing.get_context("spawn")
        requests, self._requests = context.Pipe(duplex=False)
        self._answers, answers = context.Pipe(duplex=False)
        with requests, answers:  # once the process has them, its end closes them
            self._process = context.Process(
                target=serve, args=(requests, answers, page_seconds), daemon=True
            )
            with _main_module_hidden():
                self._process.start()

    def is_ready(self) -> bool:
        return self.is_idle and not self.has_ended and self._process.is_alive()

    def await_start(self) -> None:
        try:
            self.is_idle = self._receive(_START_SECONDS) == ["ready"]
        except (EOFError, OSError, ValueError):
            cause = self._end_with_cause()
            raise PageError(f"The process to read in did not start ({cause}).") from None

    def request(self, path: Path, *, images: bool, ocr: bool) -> None:
        self.is_idle = False
        self._last_place = ""
        # The process has the folder that this one was started in.
        with contextlib.suppress(BrokenPipeError):  # is dead, as the first answer will tell
            send(self._requests, [str(path.absolute()), images, ocr])

    def next_page(self) -> Page | None:
        """Return the file's next page, or None at its end; raises `PageError`."""
        try:
            match self._receive(self._page_seconds):
                case ["page", str(place), int() | None as page, str(title), str(text), size]:
                    self._last_place = place
                    return Page(place, page, title, text, self._receive_image(size))
                case ["end"]:
                    self.is_idle = True
                    return None
                case ["refused", str(reason)]:
                    self.is_idle = True
                case _:
                    reason = self._crash()
        except TimeoutError:
            self.end()
            reason = self._delay()
        except (EOFError, OSError, ValueError):
            reason = self._crash()
        raise PageError(reason)

    def end(self) -> None:
        """End the process, whatever it does, and what it has started."""
        if self.has_ended:
            return
        self.has_ended = True
        if self._process.is_alive():
            if sys.platform != "win32" and self._process.pid is not None:
                # It leads a group of its own, unless it is only just starting.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        self._process.join(_END_SECONDS)
        self._requests.close()
        self._answers.close()

    def _receive(self, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while self._answers.poll(max(0.0, deadline - time.monotonic())):
            message = receive(self._answers)
            match message:
                case ["log", int(level), str(name), str(text)]:
                    logging.getLogger(name).log(level, "%s", text)
                case _:
                    return message
        raise TimeoutError

    def _receive_image(self, size: Any) -> "Image.Image | None":
        if size is None:
            return None
        from PIL import Image

        return Image.frombytes("RGB", tuple(size), self._answers.recv_bytes())

    def _delay(self) -> str:
        where = f"on after {self._last_place}" if self._last_place else "the first page"
        return f"Reading {where} took longer than {self._page_seconds:g} s; {_REMEDY}."

    def _crash(self) -> str:
        cause = self._end_with_cause()
        if cause == "signal SIGALRM":
            return self._delay()
        return (
            f"The reader stopped at this file ({cause}): it is damaged or takes more than "
            f"{MAX_MEMORY >> 30} GiB of memory; {_REMEDY}."
        )

    def _end_with_cause(self) -> str:
        self._process.join(1)  # its end of the pipe closes a little earlier
        self.end()
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        names = {known.value: known.name for known in signal.Signals}
        return f"signal {names.get(-code, -code)}"


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep a process that starts from importing the program's main module, as it otherwise does.

    That may load torch, or start the whole program again where it lacks
    `if __name__ == "__main__"`.
    """
    with _start_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
