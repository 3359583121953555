"""Columns by position, as sentence-transformers' trainer takes them: query, positive, negatives.

Whatever the columns are called, the first is the query, the second the positive and every further
one a negative. Columns of scores and labels are passed over.
"""

from functools import partial

from metaembed.data.examples import Example
from metaembed.data.formats.fields import Context, Pictures, Row, RowReader, without
from metaembed.data.formats.own import side_of, sides_of
from metaembed.errors import RecipeError

_LABELS = frozenset({"label", "labels", "score", "scores", "dataset_name"})


def reader(context: Context) -> RowReader:
    columns = used_columns(context.columns)
    if len(columns) < 2:
        raise RecipeError(
            f"Source {context.settings.label!r} has the columns {list(context.columns)}; the "
            "format columns needs a query and a positive."
        )
    return partial(
        _read, columns=columns, pictures=context.pictures, limit=context.settings.num_negatives
    )


def _read(row: Row, *, columns: list[str], pictures: Pictures, limit: int) -> Example:
    query, positive, *rest = columns
    right = side_of(row.get(positive), positive, pictures)
    wrong = [side for c in rest for side in sides_of(row.get(c), c, pictures)]
    return Example(
        query=side_of(row.get(query), query, pictures),
        positive=right,
        negatives=without(wrong, right, limit),
    )


def used_columns(columns: tuple[str, ...]) -> list[str]:
    """
    >>> used_columns(("anchor", "positive", "negative_1", "score"))
    ['anchor', 'positive', 'negative_1']
    """
    return [column for column in columns if column not in _LABELS]
