"""How an item is written for a backbone that follows prompts."""

import re
from dataclasses import dataclass

from metaembed.errors import ModelError
from metaembed.items import Item

FIELD = re.compile(r"\{(image|instruction|text)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Templates of both sides, with every special token that the backbone is to see.

    Fields are `{image}`, `{text}` and, where a template has a place of its own for it,
    `{instruction}`; otherwise the instruction stands before the text.

    >>> layout = Layout(query="{image}Query: {text}", candidate="{image}{text}", image="<image>")
    >>> layout.write(Item(text="whales", instruction="Find the page"), is_query=True)
    'Query: Find the page\\nwhales'
    """

    query: str
    candidate: str
    image: str
    """What stands for the picture."""
    image_text: str = "Describe the image."
    """Text of an item that is a picture alone."""
    instruction: str = ""
    """Instruction of an item that has none."""

    def __post_init__(self) -> None:
        for template in (self.query, self.candidate):
            if sorted(set(FIELD.findall(template)) - {"instruction"}) != ["image", "text"]:
                raise ModelError(
                    f"Layout {template!r} must have the fields {{image}} and {{text}}, and may "
                    "have {instruction}."
                )

    def text_of(self, item: Item, *, is_query: bool, prompt: str = "") -> str:
        """Return what the field `{text}` holds; `prompt` stands before it."""
        has_place = "{instruction}" in self._template(is_query)
        text = item.text if has_place else item.prompt()
        if text is None:
            text = self.image_text if item.image is not None else ""
        return text if has_place else prompt + text

    def write(
        self, item: Item, *, is_query: bool, prompt: str = "", text: str | None = None
    ) -> str:
        """Write an item out; `text` takes the place of its own, as when that is too long."""
        if text is None:
            text = self.text_of(item, is_query=is_query, prompt=prompt)
        values = {
            "image": "" if item.image is None else self.image,
            "instruction": item.instruction or prompt or self.instruction,
            "text": text,
        }
        return FIELD.sub(lambda found: values[found[1]], self._template(is_query))

    def _template(self, is_query: bool) -> str:
        return self.query if is_query else self.candidate
