"""Everything MetaEmbed raises on purpose.

    MetaEmbedError
        BudgetError          a budget that the model or the index cannot serve
        ItemError            an input that is neither text nor a readable image
        ModelError           a model that cannot be created, found or loaded
        IndexFormatError     an index folder that cannot be opened or is damaged
        IndexMismatchError   vectors, ids or a model that do not belong to this index
        FilterError          a metadata filter that does not parse
        PageError            a file that cannot be read into text or pages
        RecipeError          a recipe file that does not describe a run

The command line turns these into one-line messages. Anything else that escapes is a bug and
keeps its traceback.
"""

import re

MAX_LENGTH = 1000
"""Of a message. What it quotes may come from a damaged file and be of any length."""


class MetaEmbedError(Exception):
    """Base class; catch this to catch every deliberate error."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class BudgetError(MetaEmbedError, ValueError):
    pass


class ItemError(MetaEmbedError, ValueError):
    pass


class ModelError(MetaEmbedError):
    pass


class IndexFormatError(MetaEmbedError):
    pass


class IndexMismatchError(MetaEmbedError, ValueError):
    pass


class FilterError(MetaEmbedError, ValueError):
    pass


class PageError(MetaEmbedError):
    pass


class RecipeError(MetaEmbedError, ValueError):
    pass


def one_line(text: object, *, limit: int = MAX_LENGTH) -> str:
    r"""Make a line of a text: with control characters escaped, and without its middle if too long.

    >>> one_line("bad\x07\n  line"), one_line("abcdefghij", limit=7)
    ('bad\\x07 line', 'abcd…ij')
    """
    line = re.sub(r"\s+", lambda space: space[0] if space[0].isprintable() else " ", str(text))
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line.strip())
    if len(line) <= limit:
        return line
    end = limit // 3
    return f"{line[: limit - end - 1]}…{line[-end:]}"
