"""What a training set consists of: a query, the candidate that answers it, and hard negatives.

Nothing here is decoded before it is asked for; an example is a few strings and, at most, the bytes
of picture files.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from metaembed.errors import ItemError
from metaembed.images import decode_image, image_size, open_image
from metaembed.items import Item

if TYPE_CHECKING:
    from PIL import Image

IMAGE_TOKEN = "<|image_1|>"
"""Where published training sets put the picture. The model's processor puts it elsewhere."""

_IMAGE_TOKEN = re.compile(re.escape(IMAGE_TOKEN) + r"[ \t]*\n?")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is opened when it is needed: a file, or the bytes of one."""

    path: Path | None = None
    content: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.path is None and self.content is None:
            raise ItemError("A picture needs a path or the bytes of a file; it has neither.")

    def open(self) -> "Image.Image":
        """Decode it; raises `ItemError` as `metaembed.images.open_image` does."""
        return open_image(self._file) if self.content is None else decode_image(self.content)

    def size(self) -> tuple[int, int]:
        """Width and height by its header, without decoding it."""
        return image_size(self._file if self.content is None else self.content)

    def digest(self, *, by_path: bool = False) -> bytes:
        """Return 16 bytes that are the same for the same picture.

        They depend on the contents; with `by_path`, and for files that cannot be read, on a file's
        path instead, which reads nothing and takes copies for different pictures.
        """
        content = self.content
        if content is None and not by_path:
            try:
                content = self._file.read_bytes()
            except (OSError, ValueError):
                content = None
        if content is None:
            return hashlib.blake2b(
                str(self.path).encode("utf-8", "replace"), digest_size=16
            ).digest()
        return hashlib.blake2b(content, digest_size=16, person=b"content").digest()

    @property
    def _file(self) -> Path:
        assert self.path is not None
        return self.path


@dataclass(frozen=True, slots=True)
class Side:
    """A query or candidate of an example, not yet decoded: text, a picture, or both."""

    text: str | None = None
    picture: Picture | None = None
    instruction: str | None = None

    @classmethod
    def of(
        cls, text: str | None, picture: Picture | None = None, instruction: str | None = None
    ) -> "Side":
        """Build a side from what a training set holds.

        Deletes `<|image_1|>` with the line end after it, whether or not there is a picture; what
        then is empty or blank counts as absent.
        """
        return cls(_present(text), picture, _present(instruction))

    @property
    def is_empty(self) -> bool:
        return self.text is None and self.picture is None

    def item(self) -> Item:
        """Decode it into what a model reads. Raises `ItemError`."""
        image = None if self.picture is None else self.picture.open()
        return Item(text=self.text, image=image, instruction=self.instruction)

    def prompt(self) -> str | None:
        """The text that a model reads, as `Item.prompt`, without decoding the picture."""
        parts = [part for part in (self.instruction, self.text) if part is not None]
        return "\n".join(parts) if parts else None

    def key(self, *, by_path: bool = False) -> int:
        """Return a signed 64-bit number that sides have in common if they count as duplicates.

        It covers text and picture together. Texts that differ in case, white space, Unicode form
        or `<|image_1|>` are the same; pictures as `Picture.digest` says.
        """
        text = normalised(self.prompt() or "").encode("utf-8", "replace")
        picture = b"" if self.picture is None else self.picture.digest(by_path=by_path)
        digest = hashlib.blake2b(text + b"\0" + picture, digest_size=8).digest()
        return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a training set; the first negatives are the hardest."""

    query: Side
    positive: Side
    negatives: tuple[Side, ...] = ()

    def keys(self, *, by_path: bool = False) -> tuple[int, int]:
        """The keys of query and positive."""
        return self.query.key(by_path=by_path), self.positive.key(by_path=by_path)

    def sides(self) -> list[tuple[str, Side]]:
        """Every side with its name."""
        negatives = [(f"negative {n}", side) for n, side in enumerate(self.negatives, start=1)]
        return [("query", self.query), ("positive", self.positive), *negatives]


class Examples(Protocol):
    """A source of examples: a `metaembed.data.sources.Source`, or pairs in memory."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def where(self, index: int) -> str:
        """Name the place that an example comes from, for messages."""
        ...


def normalised(text: str) -> str:
    """Write a text so that near-identical ones are equal.

    >>> normalised("<|image_1|>\\nA  dog\\n") == normalised("a Dog")
    True
    """
    text = unicodedata.normalize("NFKC", text.replace(IMAGE_TOKEN, " "))
    return " ".join(text.casefold().split())


def _present(text: str | None) -> str | None:
    if text is None:
        return None
    text = _IMAGE_TOKEN.sub("", text)
    if not text.strip():
        return None
    return text.encode("utf-8", "replace").decode("utf-8")  # no tokenizer takes lone surrogates
