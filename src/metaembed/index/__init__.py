"""The vector index of one machine: a folder that is added to, filtered and searched by budget.

Knows arrays, ids and metadata; never models. `Index` is the front; `filters` describes the filter
language and `manifest` the files of the format.

>>> import tempfile
>>> import numpy as np
>>> vectors = np.array([[[1.0, 0.0]], [[0.5, 0.5]]])  # two items of one vector each
>>> with Index.create(tempfile.mkdtemp(), dim=2, groups=["1x1"]) as index:
...     index.add(["a", "b"], vectors, [{"page": 1}, {"page": 2}])
...     index.search(vectors[:1], budget="1x1", k=1, filter={"page": {"gte": 2}})
[[Hit(id='b', score=0.5, metadata={'page': 2})]]
"""

from metaembed.index.hits import Hit
from metaembed.index.index import Index
from metaembed.index.repair import Repair
from metaembed.index.upkeep import IndexStats

__all__ = ["Hit", "Index", "IndexStats", "Repair"]
