"""What is retrieved and what it is retrieved by: text, a picture, or both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaembed.errors import ItemError
from metaembed.images import IMAGE_SUFFIXES, flatten, open_image

if TYPE_CHECKING:
    from PIL import Image

_KEYS = frozenset({"text", "image", "instruction"})


@dataclass(frozen=True, slots=True)
class Item:
    """One query or candidate: `text`, `image` (RGB), or both, and an optional `instruction`.

    An instruction says what is looked for ("Find a page that answers the question") and is read
    before the text. `Item.of` builds one from whatever a caller has.
    """

    text: str | None = None
    image: "Image.Image | None" = None
    instruction: str | None = None

    def __post_init__(self) -> None:
        if self.text is None and self.image is None:
            raise ItemError("An item needs text, an image, or both; it has neither.")

    @classmethod
    def of(cls, value: Any) -> "Item":
        """Convert a str, path, PIL image, dict or `Item`.

        A `str` is text, unless it names an existing picture file (as in sentence-transformers);
        use `Item(text=...)` or `{"text": ...}` for text that must never be looked up on disk. A
        `Path` is a picture. A dict has the keys `text`, `image` (PIL image or path) and
        `instruction`. URLs are text: nothing is ever downloaded.
        """
        from PIL import Image

        if isinstance(value, Item):
            return value
        if isinstance(value, str):
            if _names_a_picture(value):
                return cls(image=open_image(Path(value)))
            return cls(text=_clean(value))
        if isinstance(value, Path):
            return cls(image=open_image(value))
        if isinstance(value, Image.Image):
            return cls(image=flatten(value))
        if isinstance(value, Mapping):
            return cls._of_mapping(value)
        raise ItemError(
            f"An item is a str, a path, a PIL image or a dict with text and image; got "
            f"{type(value).__name__}."
        )

    @classmethod
    def _of_mapping(cls, value: Mapping[str, Any]) -> "Item":
        if unknown := set(value) - _KEYS:
            raise ItemError(
                f"Item has unknown keys {sorted(map(str, unknown))}; allowed are {sorted(_KEYS)}."
            )
        for key in ("text", "instruction"):
            if not isinstance(value.get(key), str | None):
                raise ItemError(f"Item {key!r} must be a str, not {type(value[key]).__name__}.")
        image = value.get("image")
        if isinstance(image, str):
            image = Path(image)
        picture = None if image is None else cls.of(image).image
        text, instruction = value.get("text"), value.get("instruction")
        return cls(
            text=None if text is None else _clean(text),
            image=picture,
            instruction=None if instruction is None else _clean(instruction),
        )

    def prompt(self) -> str | None:
        """The text that a model reads: instruction, then text; None when there is neither."""
        parts = [part for part in (self.instruction, self.text) if part is not None]
        return "\n".join(parts) if parts else None


def is_one_item(value: Any) -> bool:
    """Tell a single item from a batch: a batch is a list, tuple, array or column of items."""
    from PIL import Image

    return isinstance(value, str | Path | Mapping | Item | Image.Image)


def items_of(values: Sequence[Any]) -> list[Item]:
    """Convert a batch; see `Item.of`."""
    return [Item.of(value) for value in values]


def _names_a_picture(text: str) -> bool:
    if len(text) > 4096 or "\n" in text or "\0" in text:
        return False
    path = Path(text)
    try:
        return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    except OSError:
        return False


def _clean(text: str) -> str:
    """Replace lone surrogates, which no tokenizer accepts."""
    return text.encode("utf-8", "replace").decode("utf-8")
