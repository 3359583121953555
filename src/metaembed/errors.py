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


class MetaEmbedError(Exception):
    """Base class; catch this to catch every deliberate error."""


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
