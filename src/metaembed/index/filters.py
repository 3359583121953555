"""Metadata filters: a small JSON language, and what it means in SQL.

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

The SQL is the definition; `metaembed.index.columns` passes the same items in less time.

>>> parse_filter({"not": {"page": {"gt": 1}}})
Not(part=Compare(field='page', operator='gt', operand=1))
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
from collections.abc import Iterable, Iterator, Mapping
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

FIELD_VALUE = """CASE WHEN json_type(metadata, ?1) IN ('text', 'integer', 'real')
    THEN json_extract(metadata, ?1) ELSE CAST(json_type(metadata, ?1) AS BLOB) END"""
"""What an item holds under the path `?1`: a text, a number, NULL when it is missing, or as a blob
the JSON type of what has no other value: null, true, false, array, object."""


class OneOf(NamedTuple):
    """Equal to one of these, by kind; literals are spelled as in JSON."""

    field: str
    texts: tuple[str, ...]
    numbers: tuple[int | float, ...]
    literals: tuple[str, ...]


class Compare(NamedTuple):
    field: str
    operator: Literal["gt", "gte", "lt", "lte"]
    operand: str | int | float


class Prefix(NamedTuple):
    field: str
    text: str


class Exists(NamedTuple):
    field: str
    present: bool


class All(NamedTuple):
    parts: tuple["Tree", ...]


class AnyOf(NamedTuple):
    parts: tuple["Tree", ...]


class Not(NamedTuple):
    part: "Tree"


Test = OneOf | Compare | Prefix | Exists
Tree = Test | All | AnyOf | Not
"""A filter that has been checked."""


class Condition(NamedTuple):
    """A WHERE clause over the column `metadata`. It is 0 or 1 for every item, never NULL."""

    sql: str
    parameters: tuple[str, ...]


def parse_filter(filter: Mapping[str, Any]) -> Tree:
    """Raises `FilterError` for what is not a filter. An empty filter passes everything."""
    return _Parser().all_of(filter, depth=1)


def compile_filter(filter: Mapping[str, Any]) -> Condition:
    """Raises `FilterError` as `parse_filter` does."""
    return as_sql(parse_filter(filter))


def as_sql(tree: Tree) -> Condition:
    parameters: list[str] = []
    return Condition(_sql(tree, parameters), tuple(parameters))


def field_path(field: str) -> str:
    """The field's name as SQLite's JSON functions take it."""
    return f'$."{field}"'


def fields_of(tree: Tree) -> set[str]:
    match tree:
        case All(parts) | AnyOf(parts):
            return set().union(*map(fields_of, parts))
        case Not(part):
            return fields_of(part)
        case test:
            return {test.field}


class _Parser:
    """Counts the conditions of one filter."""

    def __init__(self) -> None:
        self.num_conditions = 0

    def all_of(self, filter: object, *, depth: int) -> Tree:
        if not isinstance(filter, Mapping):
            raise FilterError(f"A filter is a dict of fields, not {_show(filter)}.")
        if depth > MAX_DEPTH:
            raise FilterError(f"The filter nests more than {MAX_DEPTH} levels. Simplify it.")
        return _all(self._entry(key, value, depth) for key, value in filter.items())

    def _entry(self, key: object, value: object, depth: int) -> Tree:
        if key == "not":
            return Not(self.all_of(value, depth=depth + 1))
        if key == "and" or key == "or":
            if not isinstance(value, list | tuple) or not value:
                raise FilterError(f"{key!r} takes a list of at least one filter.")
            parts = [self.all_of(part, depth=depth + 1) for part in value]
            return _all(parts) if key == "and" else AnyOf(tuple(parts))
        return self._field(_field_name(key), value)

    def _field(self, field: str, value: object) -> Tree:
        if not isinstance(value, Mapping):
            return self._one_of(field, [value])
        if not value:
            raise _bad(field, f"it is empty; give one of {OPERATORS}")
        return _all(self._test(field, name, operand) for name, operand in value.items())

    def _test(self, field: str, name: object, operand: object) -> Test:
        match name:
            case "gt" | "gte" | "lt" | "lte":
                kind, value = _scalar(field, operand)
                if kind == "literal":
                    raise _bad(field, "gt, gte, lt and lte take a number or a string")
                self._count(1)
                return Compare(field, name, value)
            case "exists":
                if not isinstance(operand, bool):
                    raise _bad(field, "'exists' takes true or false")
                self._count(1)
                return Exists(field, operand)
            case "in":
                if not isinstance(operand, list | tuple):
                    raise _bad(field, f"'in' takes a list, not {_show(operand)}")
                return self._one_of(field, operand)
            case "prefix":
                if not isinstance(operand, str):
                    raise _bad(field, f"'prefix' takes a string, not {_show(operand)}")
                self._count(1)
                return Prefix(field, _scalar(field, operand)[1])
        raise _bad(field, f"{_show(name)} is not one of {OPERATORS}")

    def _one_of(self, field: str, values: Iterable[object]) -> OneOf:
        kinds: dict[str, list[Any]] = {"text": [], "number": [], "literal": []}
        for value in values:
            kind, scalar = _scalar(field, value)
            kinds[kind].append(scalar)
        self._count(max(1, sum(map(bool, kinds.values()))))
        return OneOf(field, *map(tuple, kinds.values()))

    def _count(self, num_conditions: int) -> None:
        self.num_conditions += num_conditions
        if self.num_conditions > MAX_CONDITIONS:
            raise FilterError(
                f"The filter has more than {MAX_CONDITIONS} conditions. "
                "Use 'in' for a list of values."
            )


def _all(parts: Iterable[Tree]) -> Tree:
    listed = tuple(parts)
    return listed[0] if len(listed) == 1 else All(listed)


def _sql(tree: Tree, parameters: list[str]) -> str:
    """Appends the parameters in the order in which the SQL names them."""
    match tree:
        case All(parts):
            return _join("AND", [_sql(part, parameters) for part in parts])
        case AnyOf(parts):
            return _join("OR", [_sql(part, parameters) for part in parts])
        case Not(part):
            return f"NOT ({_sql(part, parameters)})"
        case OneOf():
            clauses = list(_one_of(tree))
        case Compare():
            clauses = [_compare(tree)]
        case Prefix(field, text):
            begins = "substr(json_extract(metadata, ?), 1, length(?)) = ?"
            path = field_path(field)
            clauses = [Condition(f"({IS_TEXT} AND {begins})", (path, path, text, text))]
        case Exists(field, present):
            sql = f"json_type(metadata, ?) IS {'NOT ' * present}NULL"
            clauses = [Condition(sql, (field_path(field),))]
    for clause in clauses:
        parameters.extend(clause.parameters)
    return _join("OR", [clause.sql for clause in clauses])


def _one_of(test: OneOf) -> Iterator[Condition]:
    path = field_path(test.field)
    if test.texts:
        sql = f"({IS_TEXT} AND {VALUE_IN})"
        yield Condition(sql, (path, path, json.dumps(test.texts)))
    if test.numbers:
        sql = f"({IS_NUMBER} AND {VALUE_IN})"
        yield Condition(sql, (path, path, json.dumps(test.numbers)))
    if test.literals:
        yield Condition(LITERAL_IN, (path, json.dumps(test.literals)))
    if not any(test[1:]):
        yield Condition("0", ())


def _compare(test: Compare) -> Condition:
    path, operator = field_path(test.field), COMPARISONS[test.operator]
    if isinstance(test.operand, str):
        sql = f"({IS_TEXT} AND json_extract(metadata, ?) {operator} ?)"
        return Condition(sql, (path, path, test.operand))
    sql = f"({IS_NUMBER} AND json_extract(metadata, ?) {operator} json_extract(?, '$'))"
    return Condition(sql, (path, path, json.dumps(test.operand)))


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


def _scalar(field: str, value: object) -> tuple[Literal["text", "number", "literal"], Any]:
    """The kind of a value that a field can be compared with, and the plain value."""
    match value:
        case None | bool():
            return "literal", json.dumps(value)
        case str():
            if not is_plain_text(value):
                raise _bad(field, "a string cannot hold NUL or half a surrogate pair")
            return "text", str.__str__(value)  # of an enum, its value
        case int() if value.bit_length() <= MAX_INTEGER_BITS:
            return "number", int(value)
        case float() if math.isfinite(value):
            return "number", float(value)
    raise _bad(field, f"{_show(value)} is not a string, finite number, true, false or null")


def _bad(field: str, problem: str) -> FilterError:
    return FilterError(f"Filter on {_show(field)}: {problem}.")


def _show(value: object) -> str:
    """Strings shortened; of anything else the type, whose text may be long or fail."""
    return reprlib.repr(value) if isinstance(value, str) else type(value).__name__
