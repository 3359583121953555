"""Opening pictures without trusting them."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from metaembed.errors import ItemError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded: 300 MB as RGB."""


def open_image(path: Path) -> "Image.Image":
    """Decode the first frame of a picture as upright RGB, transparency on white.

    Raises `ItemError` for anything that is not a readable picture of at most `MAX_PIXELS`; the
    size is read from the header, before any pixel is decoded.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ItemError(_too_large(path, f"{width} × {height} pixels"))
                return flatten(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise ItemError(_too_large(path, "far more pixels")) from None
    except FileNotFoundError:
        raise ItemError(f"There is no image {path.name!r}; give the path of a picture.") from None
    except Image.UnidentifiedImageError:
        raise ItemError(f"{path.name!r} is not a picture in a format that is read.") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        if isinstance(error, ItemError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ItemError(f"{path.name!r} cannot be decoded: {reason}.") from None


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


def _too_large(path: Path, size: str) -> str:
    return (
        f"Image {path.name!r} claims {size}; at most {MAX_PIXELS // 10**6} million are decoded. "
        "Scale it down first."
    )
