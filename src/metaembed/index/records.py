"""Ids and metadata on their way in and out of the catalog."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from metaembed.errors import IndexFormatError, IndexMismatchError

MAX_ID_LENGTH = 1024
MAX_METADATA_DEPTH = 64
"""SQLite's JSON functions refuse a text that nests 1000 levels or more, and with it any filter
over the whole index."""


MAX_INTEGER_BITS = 1024
"""About where float64 ends; Python itself refuses to print integers much longer than that."""


def is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and is_plain_text(value)


def id_list(ids: Sequence[str]) -> list[str]:
    """Take any sequence of ids but a lone string, which would be read letter by letter."""
    if isinstance(ids, str | bytes):
        raise IndexMismatchError(f"ids must be a list of strings; write [{ids!r}].")
    return list(ids)


def new_ids(ids: Sequence[str]) -> list[str]:
    """Check ids that are about to be stored; `IndexMismatchError` for a bad or a repeated one."""
    listed = id_list(ids)
    for one in listed:
        if not is_id(one):
            raise IndexMismatchError(
                f"{_shorten(one)} cannot be an id. An id is a string of 1 to {MAX_ID_LENGTH} "
                "characters of valid Unicode without NUL."
            )
    if len(set(listed)) != len(listed):
        twice = next(one for one, count in Counter(listed).items() if count > 1)
        raise IndexMismatchError(f"Id {_shorten(twice)} is given twice. Give every id once.")
    return listed


def encode_metadata(metadata: Sequence[Mapping[str, Any]] | None, ids: Sequence[str]) -> list[str]:
    """Turn one mapping per id into JSON texts; `IndexMismatchError` where that would lose any."""
    if metadata is None:
        return ["{}"] * len(ids)
    if isinstance(metadata, Mapping) or len(metadata) != len(ids):
        raise IndexMismatchError(
            f"metadata must be a list with one dict for each of the {len(ids)} ids."
        )
    return [_encode(one, id) for one, id in zip(metadata, ids, strict=True)]


def checked_texts(texts: Sequence[str | None] | None, ids: Sequence[str]) -> list[str | None]:
    """One text or None for each id; `IndexMismatchError` for what SQLite cannot hold."""
    if texts is None:
        return [None] * len(ids)
    if isinstance(texts, str) or len(texts) != len(ids):
        raise IndexMismatchError(
            f"texts must be a list with one string or None for each of the {len(ids)} ids."
        )
    for text, id in zip(texts, ids, strict=True):
        if text is not None and (not isinstance(text, str) or not is_plain_text(text)):
            raise IndexMismatchError(
                f"The text of {_shorten(id)} is not a string of valid Unicode without NUL."
            )
    return list(texts)


def _encode(metadata: Mapping[str, Any], id: str) -> str:
    if not isinstance(metadata, Mapping):
        raise IndexMismatchError(
            f"The metadata of {_shorten(id)} is {type(metadata).__name__}; it must be a dict."
        )
    fields = dict(metadata)
    problem = _json_problem(fields, 1)
    if problem is not None:
        raise IndexMismatchError(
            f"The metadata of {_shorten(id)} cannot be stored as JSON: it holds {problem}."
        )
    # Escapes only where JSON demands them, since SQLite compares the keys as they are spelled.
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _json_problem(value: object, depth: int) -> str | None:
    match value:
        case int() if value.bit_length() > MAX_INTEGER_BITS:
            return f"an integer of more than {MAX_INTEGER_BITS} bits"
        case None | bool() | int():
            return None
        case str():
            return None if is_plain_text(value) else "text with NUL or half a surrogate pair"
        case float():
            return None if math.isfinite(value) else "NaN or infinity"
        case dict() if not all(isinstance(key, str) for key in value):
            return "a key that is not a string"
        case dict():
            parts = [*value, *value.values()]
        case list() | tuple():
            parts = list(value)
        case _:
            return f"a {type(value).__name__}"
    if depth > MAX_METADATA_DEPTH:
        return f"more than {MAX_METADATA_DEPTH} levels of lists and dicts"
    problems = (_json_problem(part, depth + 1) for part in parts)
    return next((problem for problem in problems if problem is not None), None)


def decode_metadata(text: object) -> dict[str, Any]:
    try:
        fields = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise IndexFormatError(
            f"The index is damaged: {_shorten(text)} is not the metadata of an item. "
            "Run `metaembed index repair` on it, restore catalog.sqlite or rebuild the index."
        )
    return fields


def is_plain_text(text: str) -> bool:
    """Whether SQLite can hold it: its functions end a text at NUL and know only valid UTF-8."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
