"""The process that reads files for `Reader`: it takes requests and sends pages back.

Messages are JSON and raw pixels, never pickled objects: what a file makes of this process, it
cannot make the other end run code.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from metaembed.errors import PageError
from metaembed.pages.page import Page
from metaembed.pages.reading import read_pages

log = logging.getLogger(__name__)

MAX_MEMORY = 4 << 30
"""Bytes of address space: decoding the largest picture that is read takes 2.4 GiB."""
_GRACE = 10.0  # seconds that the other end has to act before this process stops itself

Message = list[Any]


def serve(requests: Connection, answers: Connection, page_seconds: float) -> None:
    """Read one requested file after the other until the other end is gone.

    Sends `["ready"]`, then for each request `[path, images, ocr]` any number of
    `["page", place, page, title, text, size]`, each with a size followed by the RGB bytes, and at
    last `["end"]` or `["refused", reason]`. `["log", level, name, text]` may come in between.
    Sending waits for the other end, so no more is read ahead than one page and what the pipe holds.
    """
    _confine()
    waiting: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    logging.getLogger().addHandler(_Forwarder(answers))
    with contextlib.suppress(BrokenPipeError):
        send(answers, ["ready"])
        while True:
            for message, pixels in _answer(waiting.get(), page_seconds):
                send(answers, message)
                if pixels is not None:
                    answers.send_bytes(pixels)


def send(connection: Connection, message: Message) -> None:
    # File names and text may hold half a surrogate pair.
    text = json.dumps(message, ensure_ascii=False)
    connection.send_bytes(text.encode("utf-8", "surrogatepass"))


def receive(connection: Connection) -> Any:
    return json.loads(connection.recv_bytes().decode("utf-8", "surrogatepass"))


class _Forwarder(logging.Handler):
    """Sends what is logged to the other end, which has the user's log."""

    def __init__(self, answers: Connection) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        send(self._answers, ["log", record.levelno, record.name, self.format(record)])


def _confine() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # is for the other end to handle
    if sys.platform != "win32":
        import resource

        os.setsid()  # so that tesseract can be ended along with this process
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        # Some systems know the limit and refuse to set it.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (min([MAX_MEMORY, *limits]), hard))


def _listen(requests: Connection, waiting: "SimpleQueue[Message]") -> None:
    """Pass requests on; once there can be no more, end the process wherever it is."""
    try:
        while True:
            waiting.put(receive(requests))
    except (EOFError, OSError):
        if sys.platform != "win32":
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(0)


def _answer(request: Message, page_seconds: float) -> Iterator[tuple[Message, bytes | None]]:
    path, images, ocr = request
    pages = read_pages(Path(path), images=images, ocr=ocr)
    try:
        for place, number, title, text, image in _timed(pages, page_seconds + _GRACE):
            size, pixels = (image.size, image.tobytes()) if image is not None else (None, None)
            yield ["page", place, number, title, text, size], pixels
    except PageError as error:
        yield ["refused", str(error)], None
    except MemoryError:
        reason = f"Reading the file takes more than {MAX_MEMORY >> 30} GiB of memory; split it."
        yield ["refused", reason], None
    except Exception as error:
        log.exception("%s: the reader failed.", path)
        failure = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        yield ["refused", f"The reader failed at this file ({failure}); the log says where."], None
    else:
        yield ["end"], None


def _timed(pages: Iterator[Page], seconds: float) -> Iterator[Page]:
    """Have the system end this process when a page takes too long.

    The other end does so earlier, unless it is gone or busy with the page before.
    """
    while True:
        _set_alarm(seconds)
        try:
            page = next(pages, None)
        finally:
            _set_alarm(0)
        if page is None:
            return
        yield page


def _set_alarm(seconds: float) -> None:
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)
