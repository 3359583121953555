"""Opening pictures without trusting them."""

import contextlib
import itertools
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from metaembed.errors import ItemError, PageError
from metaembed.files import open_regular

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Whatever the suffix says; of the other formats that Pillow knows some start another program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000
"""Largest picture that is decoded: 300 MB as RGB."""


def open_image(path: Path) -> "Image.Image":
    """Decode the first frame of a picture as upright RGB, transparency on white.

    Raises `ItemError` for anything that is not a readable picture of at most `MAX_PIXELS`; the
    size is read from the header, before any pixel is decoded.
    """
    try:
        with contextlib.closing(frames_of(path)) as frames:
            _, image = next(frames)
            return image
    except (ItemError, PageError) as error:
        raise ItemError(f"{path.name!r}: {error}") from None


def decode_image(content: bytes) -> "Image.Image":
    """As `open_image`, from the bytes of a file."""
    with contextlib.closing(_frames(BytesIO(content))) as frames:
        _, image = next(frames)
        return image


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Read width and height from the header; raises `ItemError` as `open_image` does."""
    from PIL import Image

    if isinstance(source, Path):
        try:
            with open_regular(source) as file, _decoding():
                return _checked_size(Image.open(file, formats=_FORMATS))
        except (ItemError, PageError) as error:
            raise ItemError(f"{source.name!r}: {error}") from None
    with _decoding():
        return _checked_size(Image.open(BytesIO(source), formats=_FORMATS))


def flatten(image: "Image.Image") -> "Image.Image":
    """Return `image` as RGB; transparent parts become white."""
    from PIL import Image

    if image.mode == "RGB":
        return image.copy()
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def frames_of(path: Path) -> "Generator[tuple[int | None, Image.Image]]":
    """Decode the pages of a TIFF, numbered from 1, or the first frame of anything else."""
    with open_regular(path) as file:
        yield from _frames(file)


def _frames(file: BinaryIO) -> "Generator[tuple[int | None, Image.Image]]":
    from PIL import Image

    with _decoding():
        picture = Image.open(file, formats=_FORMATS)
        is_paged = picture.format == "TIFF" and _seek(picture, 1)
        picture.seek(0)
        image = _decode(picture)
    yield (1 if is_paged else None), image
    for number in itertools.count(2) if is_paged else ():
        with _decoding():
            if not _seek(picture, number - 1):
                return
            image = _decode(picture)
        yield number, image


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn what a decoder raises into `ItemError`, and keep its warnings to itself."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ItemError:
        raise
    except Image.DecompressionBombError:
        raise ItemError(_too_large("far more pixels")) from None
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS)
        raise ItemError(
            f"This is not a readable picture ({known}): it is damaged or of another type."
        ) from None
    except Exception as error:  # damaged files make decoders raise almost anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ItemError(f"The picture cannot be decoded: {reason.rstrip('.')}.") from None


def _seek(picture: "Image.Image", frame: int) -> bool:
    try:
        picture.seek(frame)
    except EOFError:
        return False
    return True


def _decode(picture: "Image.Image") -> "Image.Image":
    _checked_size(picture)
    picture.load()
    return flatten(_with_8_bits(_upright(picture)))


def _checked_size(picture: "Image.Image") -> tuple[int, int]:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ItemError(_too_large(f"{width:,} × {height:,} pixels"))
    return width, height


def _upright(picture: "Image.Image") -> "Image.Image":
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF data leave the pixels as they are
        return picture


def _with_8_bits(image: "Image.Image") -> "Image.Image":
    """Stretch grey levels of 16 or 32 bits over 0 to 255; Pillow's own conversion clips them."""
    if image.mode not in ("F", "I") and not image.mode.startswith("I;"):
        return image
    image = image.convert("F")
    lowest, highest = cast("tuple[float, float]", image.getextrema())
    if not lowest < highest:
        return image.convert("L")
    factor = 255 / (highest - lowest)
    return image.point(lambda level: level * factor - lowest * factor).convert("L")


def _too_large(size: str) -> str:
    return (
        f"The picture claims {size}; at most {MAX_PIXELS // 10**6} million are decoded. "
        "Scale it down first."
    )
