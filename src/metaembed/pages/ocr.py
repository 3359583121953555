"""Reading the text of a picture with tesseract, a program that the user installs."""

import io
import logging
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from metaembed.errors import PageError

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

OCR_HINT = (
    "Text in scans and pictures is read by tesseract, which is not installed: "
    "`apt install tesseract-ocr` on Debian and Ubuntu, `brew install tesseract` on macOS, "
    "the installer from https://github.com/UB-Mannheim/tesseract/wiki on Windows."
)
TIMEOUT = 60
"""Seconds for one picture; a full page of print takes about two."""
MAX_SIDE = 4_000
"""Pixels: an A4 page at 300 dpi is 3,508 high, and more does not help to read it."""
MIN_SIDE = 8
"""Pixels: tesseract complains of smaller pictures, which hold no letters."""


def ocr_available() -> bool:
    return shutil.which("tesseract") is not None


def ocr_text(image: "Image.Image") -> str:
    """Read the text of a picture; empty when there is none.

    Raises `PageError` when tesseract is not installed, fails or takes longer than `TIMEOUT`.
    """
    program = shutil.which("tesseract")
    if program is None:
        raise PageError(OCR_HINT)
    grey = image.convert("L")
    darkest, lightest = grey.getextrema()
    if darkest == lightest or min(grey.size) < MIN_SIDE:
        return ""
    grey.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    grey.save(buffer, "PPM")
    return _run(program, buffer.getvalue()).strip()


def text_of(image: "Image.Image", *, name: str) -> str:
    """Read what can be read of one picture among many; a failure is logged under `name`."""
    if not ocr_available():
        return ""
    try:
        return ocr_text(image)
    except PageError as error:
        log.warning("%s is kept without its text. %s", name, error)
        return ""


def _run(program: str, picture: bytes) -> str:
    try:
        done = subprocess.run(
            [program, "stdin", "stdout"],
            input=picture,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            # Its threads slow it down, and another page may be read on the next core.
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )
    except subprocess.TimeoutExpired:
        raise PageError(f"Reading the picture's text took longer than {TIMEOUT} s.") from None
    except OSError as error:
        raise PageError(f"tesseract cannot be started: {error.strerror}.") from None
    if done.returncode != 0:
        complaint = " ".join(done.stderr.decode(errors="replace").split())
        raise PageError(f"tesseract failed ({done.returncode}): {complaint[:200]}")
    return done.stdout.decode("utf-8", errors="replace").replace("\f", "\n")
