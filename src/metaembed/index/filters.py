"""Metadata filters: a small JSON language, compiled to SQL.

A filter is a dict. Each key names a field at the top level of an item's metadata, and every key
has to hold:

    {"source": "a.pdf"}                         equal: a string, number, true, false or null
    {"page": {"gte": 2, "lt": 5}}               gt, gte, lt, lte: numbers, or strings by code point
    {"kind": {"in": ["pdf", "html"]}}           equal to one of them
    {"source": {"prefix": "docs/"}}             a string that begins like this
    {"tag": {"exists": true}}                   present, even as null; false: absent
    {"and": [{...}, {...}]}                     all of them
    {"or": [{...}, {...}]}                      any of them
    {"not": {...}}                              every item that the inner filter does not pass

Types are never converted: 1 equals 1.0 but neither "1" nor true, and a comparison with another
type does not match. A missing field matches nothing but `exists: false` (and what `not` makes of
it). Lists and dicts in the metadata match nothing but `exists`.

A field's name is any string without quotation marks, backslashes and control characters; `and`,
`or` and `not` are taken. Names and values reach SQLite as parameters, never as part of the SQL.

>>> compile_filter({"page": {"exists": True}})
Condition(sql='json_type(metadata, ?) IS NOT NULL', parameters=('$."page"',))
>>> compile_filter({"page": {"exists": "yes"}})
Traceback (most recent call last):
    ...
metaembed.errors.FilterError: Filter on 'page': 'exists' takes true or false.
"""

import json
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from metaembed.errors import FilterError
from metaembed.index.records import MAX_INTEGER_BITS, is_plain_text

MAX_DEPTH = 16
MAX_CONDITIONS = 256
"""SQLite allows expressions 1000 levels deep, and a chain of ANDs is as deep as it is long."""

COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
OPERATORS = ", ".join(sorted([*COMPARISONS, "exists", "in", "prefix"]))

# json_type is NULL for a missing field; these are 0 then, so that NOT turns them into 1.
IS_TEXT = "json_type(metadata, ?) IS 'text'"
IS_NUMBER = "coalesce(json_type(metadata, ?), '') IN ('integer', 'real')"
# Values go through SQLite's JSON reader as the metadata did, so that both sides round alike.
VALUE_IN = "json_extract(metadata, ?) IN (SELECT value FROM json_each(?))"
LITERAL_IN = "coalesce(json_type(metadata, ?), '') IN (SELECT value FROM json_each(?))"


class Condition(NamedTuple):
    """A WHERE clause over the column `metadata`. It is 0 or 1 for every item, never NULL."""

    sql: str
    parameters: tuple[str, ...]


def compile_filter(filter: Mapping[str, Any]) -> Condition:
    """Raises `FilterError` for what is not a filter. An empty filter passes everything."""
    compiler = _Compiler()
    sql = compiler.all_of(filter, depth=1)
    return Condition(sql, tuple(compiler.parameters))


class _Compiler:
    """Collects the parameters in the order in which the SQL names them."""

    def __init__(self) -> None:
        self.parameters: list[str] = []
        self.num_conditions = 0

    def all_of(self, filter: object, *, depth: int) -> str:
        if not isinstance(filter, Mapping):
            raise FilterError(f"A filter is a dict of fields, not {_show(filter)}.")
        if depth > MAX_DEPTH:
            raise FilterError(f"The filter nests more than {MAX_DEPTH} levels. Simplify it.")
        return _join("AND", [self._entry(key, value, depth) for key, value in filter.items()])

    def _entry(self, key: object, value: object, depth: int) -> str:
        if key == "not":
            return f"NOT ({self.all_of(value, depth=depth + 1)})"
        if key == "and" or key == "or":
            if not isinstance(value, list | tuple) or not value:
                raise FilterError(f"{key!r} takes a list of at least one filter.")
            parts = [self.all_of(part, depth=depth + 1) for part in value]
            return _join("AND" if key == "and" else "OR", parts)
        return self._field(_field_name(key), value)

    def _field(self, field: str, value: object) -> str:
        if not isinstance(value, Mapping):
            return self._one_of(field, [value])
        if not value:
            raise _bad(field, f"it is empty; give one of {OPERATORS}")
        return _join("AND", [self._test(field, name, operand) for name, operand in value.items()])

    def _test(self, field: str, name: object, operand: object) -> str:
        match name:
            case "gt" | "gte" | "lt" | "lte":
                return self._compare(field, COMPARISONS[name], operand)
            case "exists":
                if not isinstance(operand, bool):
                    raise _bad(field, "'exists' takes true or false")
                return self._sql(f"json_type(metadata, ?) IS {'NOT ' * operand}NULL", _path(field))
            case "in":
                if not isinstance(operand, list | tuple):
                    raise _bad(field, f"'in' takes a list, not {_show(operand)}")
                return self._one_of(field, operand)
            case "prefix":
                return self._prefix(field, operand)
        raise _bad(field, f"{_show(name)} is not one of {OPERATORS}")

    def _one_of(self, field: str, values: Iterable[object]) -> str:
        kinds: dict[str, list[object]] = {"text": [], "number": [], "literal": []}
        for value in values:
            kinds[_kind(field, value)].append(value)
        path = _path(field)
        clauses = []
        if texts := kinds["text"]:
            clauses.append(self._sql(f"({IS_TEXT} AND {VALUE_IN})", path, path, json.dumps(texts)))
        if numbers := kinds["number"]:
            sql = f"({IS_NUMBER} AND {VALUE_IN})"
            clauses.append(self._sql(sql, path, path, json.dumps(numbers)))
        if literals := kinds["literal"]:
            names = [json.dumps(value) for value in literals]  # true, false, null
            clauses.append(self._sql(LITERAL_IN, path, json.dumps(names)))
        return _join("OR", clauses) if clauses else self._sql("0")

    def _compare(self, field: str, operator: str, operand: object) -> str:
        path = _path(field)
        match _kind(field, operand):
            case "text":
                sql, value = f"({IS_TEXT} AND json_extract(metadata, ?) {operator} ?)", str(operand)
            case "number":
                right = "json_extract(?, '$')"
                sql = f"({IS_NUMBER} AND json_extract(metadata, ?) {operator} {right})"
                value = json.dumps(operand)
            case "literal":
                raise _bad(field, "gt, gte, lt and lte take a number or a string")
        return self._sql(sql, path, path, value)

    def _prefix(self, field: str, operand: object) -> str:
        if not isinstance(operand, str) or _kind(field, operand) != "text":
            raise _bad(field, f"'prefix' takes a string, not {_show(operand)}")
        path = _path(field)
        begins = "substr(json_extract(metadata, ?), 1, length(?)) = ?"
        return self._sql(f"({IS_TEXT} AND {begins})", path, path, operand, operand)

    def _sql(self, sql: str, *parameters: str) -> str:
        self.num_conditions += 1
        if self.num_conditions > MAX_CONDITIONS:
            raise FilterError(
                f"The filter has more than {MAX_CONDITIONS} conditions. "
                "Use 'in' for a list of values."
            )
        self.parameters.extend(parameters)
        return sql


def _join(operator: Literal["AND", "OR"], clauses: list[str]) -> str:
    if not clauses:  # of an empty filter
        return "1"
    return clauses[0] if len(clauses) == 1 else f"({f' {operator} '.join(clauses)})"


def _field_name(key: object) -> str:
    # What SQLite's quoted path labels can name, in a text that SQLite can hold.
    if not isinstance(key, str) or not re.fullmatch(r'[^"\\\x00-\x1f\ud800-\udfff]+', key):
        raise FilterError(
            f"{_show(key)} cannot be the name of a field. A name is a string without "
            "quotation marks, backslashes and control characters."
        )
    return key


def _path(field: str) -> str:
    return f'$."{field}"'


def _kind(field: str, value: object) -> Literal["text", "number", "literal"]:
    match value:
        case None | bool():
            return "literal"
        case str():
            if not is_plain_text(value):
                raise _bad(field, "a string cannot hold NUL or half a surrogate pair")
            return "text"
        case int() if value.bit_length() <= MAX_INTEGER_BITS:
            return "number"
        case float() if math.isfinite(value):
            return "number"
    raise _bad(field, f"{_show(value)} is not a string, finite number, true, false or null")


def _bad(field: str, problem: str) -> FilterError:
    return FilterError(f"Filter on {_show(field)}: {problem}.")


def _show(value: object) -> str:
    """Strings shortened; of anything else the type, whose text may be long or fail."""
    return reprlib.repr(value) if isinstance(value, str) else type(value).__name__
