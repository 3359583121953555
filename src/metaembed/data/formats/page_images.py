"""Page images found by questions: vidore/colpali_train_set and VisRAG's training sets.

`query` is the question and `image` the page that answers it. There are no negatives, and the
`answer` that some rows have is not what retrieval is for.
"""

from functools import partial

from metaembed.data.examples import Example, Side
from metaembed.data.formats.fields import Context, Pictures, Row, RowReader, text_field


def reader(context: Context) -> RowReader:
    return partial(_read, pictures=context.pictures)


def _read(row: Row, *, pictures: Pictures) -> Example:
    return Example(
        query=Side.of(text_field(row, "query")),
        positive=Side(picture=pictures.find(row.get("image"), "image")),
    )
