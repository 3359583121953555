"""Items by their ids: metadata, texts and vectors, in the order asked for."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from metaembed.errors import IndexMismatchError
from metaembed.index.reading import read_vectors
from metaembed.index.records import decode_metadata, id_list, is_id
from metaembed.index.store import Store


def has_item(store: Store, id: object) -> bool:
    with store.reading():
        return is_id(id) and bool(store.catalog.sequences_of([str(id)])[0])


def metadata_of(store: Store, ids: Sequence[str]) -> list[dict[str, Any]]:
    wanted = id_list(ids)
    with store.reading():
        found = store.catalog.metadata_of(_possible(wanted))
    _require_known(store, wanted, found)
    return [decode_metadata(found[id]) for id in wanted]


def texts_of(store: Store, ids: Sequence[str]) -> list[str | None]:
    wanted = id_list(ids)
    with store.reading():
        found, sequences = store.catalog.sequences_of(_possible(wanted))
        texts = store.catalog.texts().text_of(sequences.tolist())
    _require_known(store, wanted, found)
    place = dict(zip(found, sequences.tolist(), strict=True))
    return [texts.get(place[id]) for id in wanted]


def embeddings_of(store: Store, ids: Sequence[str]) -> Float[np.ndarray, "N r dim"]:
    wanted, manifest = id_list(ids), store.manifest
    with store.reading():  # throughout, so that no segment is compacted away
        found, sequences = store.catalog.sequences_of(_possible(wanted))
        _require_known(store, wanted, found)
        place = {id: number for number, id in enumerate(found)}
        asked = sequences[[place[id] for id in wanted]]
        shape = len(wanted), manifest.limit.candidate, manifest.dim
        vectors = np.empty(shape, np.float32)
        for entry, numbers, rows in store.snapshot().locate(asked):
            vectors[numbers] = read_vectors(store.segments, entry.segment, rows)
        return vectors


def _possible(ids: Sequence[str]) -> set[str]:
    return {id for id in ids if is_id(id)}


def _require_known(store: Store, wanted: Sequence[str], found: Collection[str]) -> None:
    found = set(found)
    unknown = [id for id in wanted if not is_id(id) or id not in found]
    if unknown:
        raise IndexMismatchError(
            f"Index {store.name!r} has no item {unknown[0]!r} "
            f"({len(unknown)} of these {len(wanted)} ids are unknown)."
        )
