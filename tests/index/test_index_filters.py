"""Metadata filters against the same language in plain Python."""

import enum
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.errors import FilterError
from metaembed.index import Index
from metaembed.index.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    All,
    AnyOf,
    Compare,
    Exists,
    Not,
    OneOf,
    Prefix,
    compile_filter,
    fields_of,
    parse_filter,
)


def same_kind(a, b):
    def kind(value):
        return "number" if type(value) in (int, float) else type(value)

    return kind(a) == kind(b)


def passes(filter, metadata):
    """The language, spelled out."""
    for key, value in filter.items():
        if key == "and":
            passed = all([passes(part, metadata) for part in value])
        elif key == "or":
            passed = any([passes(part, metadata) for part in value])
        elif key == "not":
            passed = not passes(value, metadata)
        else:
            tests = value if isinstance(value, dict) else {"in": [value]}
            passed = all([holds(name, operand, key, metadata) for name, operand in tests.items()])
        if not passed:
            return False
    return True


def holds(name, operand, key, metadata):
    if name == "exists":
        return (key in metadata) == operand
    value = metadata.get(key, object)
    if name == "in":
        return any([same_kind(value, one) and value == one for one in operand])
    if not same_kind(value, operand):
        return False
    return {
        "gt": lambda: value > operand,
        "gte": lambda: value >= operand,
        "lt": lambda: value < operand,
        "lte": lambda: value <= operand,
        "prefix": lambda: value.startswith(operand),
    }[name]()


ITEMS = [
    {"source": "docs/a.pdf", "page": 1, "kind": "pdf"},
    {"source": "docs/b.pdf", "page": 2.0, "kind": "pdf", "tag": None},
    {"source": "web/c.html", "page": "2", "kind": "html", "tag": True},
    {"source": "docs%", "page": 5, "kind": ["pdf"], "tag": {"a": 1}},
    {},
]


def index_of(folder, items):
    index = Index.create(folder, dim=1, groups=["1x1"])
    ids = [str(n) for n in range(len(items))]
    index.add(ids, np.ones((len(items), 1, 1), np.float32), items)
    return index


def matches(index, filter):
    hits = index.search(np.ones((1, 1, 1), np.float32), k=1000, filter=filter)
    return [int(hit.id) for hit in hits[0]]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"source": "docs/a.pdf"}, [0]),
        ({"page": 2}, [1]),  # 2.0, but not "2"
        ({"page": "2"}, [2]),
        ({"page": {"gte": 2, "lt": 5}}, [1]),
        ({"page": {"gt": 0}}, [0, 1, 3]),
        ({"page": {"lte": "3"}}, [2]),
        ({"kind": {"in": ["pdf", "html"]}}, [0, 1, 2]),  # not ["pdf"]
        ({"kind": {"in": []}}, []),
        ({"tag": None}, [1]),
        ({"tag": True}, [2]),
        ({"tag": 1}, []),
        ({"tag": {"in": [False, None]}}, [1]),
        ({"tag": {"exists": True}}, [1, 2, 3]),
        ({"tag": {"exists": False}}, [0, 4]),
        ({"source": {"prefix": "docs/"}}, [0, 1]),
        ({"source": {"prefix": "docs%"}}, [3]),
        ({"source": {"prefix": ""}}, [0, 1, 2, 3]),
        ({"source": {"prefix": "docs/", "gt": "docs/a.pdf"}}, [1]),
        ({"kind": "pdf", "page": 1}, [0]),
        ({"and": [{"kind": "pdf"}, {"page": {"lt": 2}}]}, [0]),
        ({"or": [{"page": 5}, {"kind": "html"}]}, [2, 3]),
        ({"not": {"kind": "pdf"}}, [2, 3, 4]),  # a missing field is not "pdf"
        ({"not": {"page": {"gt": 1}}}, [0, 2, 4]),
        ({"not": {}}, []),
        ({"page": 1, "or": [{"kind": "html"}, {"not": {"page": 5}}]}, [0]),
    ],
)
def test_a_filter_worked_by_hand(tmp_path, filter, expected):
    with index_of(tmp_path, ITEMS) as index:
        assert matches(index, filter) == expected


NAMES = st.sampled_from(["a", "b", "x y", "a.b", "$[0]", "é", "'; --", "length"])
TEXTS = st.text(st.sampled_from("aAbé😀\uffff%_'\"\\\n1"), max_size=3)
ORDERED = st.one_of(
    st.integers(-2, 2),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**53, 2**53 + 1, 0.1 + 0.2, 0.3, 1.0, 1e300]),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    TEXTS,
)
SCALARS = st.one_of(st.none(), st.booleans(), ORDERED)
METADATA = st.dictionaries(
    NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.just({"a": 1})), max_size=4
)
TESTS = st.dictionaries(
    st.sampled_from(["gt", "gte", "lt", "lte"]), ORDERED, min_size=1, max_size=2
)
LEAVES = st.one_of(
    SCALARS,
    TESTS,
    st.fixed_dictionaries({"in": st.lists(SCALARS, max_size=4)}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries({"prefix": st.text(st.sampled_from("aAé😀%"), max_size=2)}),
)
FIELDS = st.dictionaries(NAMES, LEAVES, max_size=2)


@st.composite
def filters(draw, levels=2):
    filter = draw(FIELDS)
    word = draw(st.sampled_from(["", "not", "and", "or"])) if levels else ""
    if word == "not":
        filter["not"] = draw(filters(levels - 1))
    elif word:
        filter[word] = [draw(filters(levels - 1)) for _ in range(draw(st.integers(1, 3)))]
    return filter


@settings(max_examples=25, deadline=None)
@given(items=st.lists(METADATA, max_size=12), filters=st.lists(filters(), min_size=3, max_size=9))
def test_any_filter_passes_what_plain_python_passes(items, filters):
    with tempfile.TemporaryDirectory() as folder, index_of(folder, items) as index:
        for filter in filters:
            expected = [n for n, metadata in enumerate(items) if passes(filter, metadata)]
            assert matches(index, filter) == expected
            assert matches(index, {"not": filter}) == sorted({*range(len(items))} - {*expected})


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ([], "A filter is a dict of fields, not list"),
        ("page = 1", "not 'page = 1'"),
        ({1: 2}, "int cannot be the name of a field"),
        ({"": 2}, "'' cannot be the name"),
        ({'a"': 2}, "quotation marks"),
        ({"a\\": 2}, "backslashes"),
        ({"a\0": 2}, "control characters"),
        ({"\ud800": 2}, "cannot be the name"),
        ({"page": {}}, "'page': it is empty; give one of exists, gt, gte, in, lt, lte, prefix"),
        ({"page": {"above": 1}}, "'above' is not one of exists"),
        ({"page": {1: 1}}, "int is not one of"),
        ({"page": {"gt": True}}, "take a number or a string"),
        ({"page": {"gt": [1]}}, "list is not a string, finite number"),
        ({"page": [1, 2]}, "list is not a string"),
        ({"page": {"in": "abc"}}, "'in' takes a list"),
        ({"page": {"in": [[1]]}}, "list is not a string"),
        ({"page": {"exists": 1}}, "'exists' takes true or false"),
        ({"page": {"prefix": 1}}, "'prefix' takes a string"),
        ({"page": float("nan")}, "float is not a string"),
        ({"page": 10**5000}, "int is not a string"),
        ({"page": object()}, "object is not a string"),
        ({"page": "a\0"}, "NUL"),
        ({"page": {"prefix": "\ud800"}}, "surrogate"),
        ({"and": []}, "'and' takes a list of at least one filter"),
        ({"or": {"page": 1}}, "'or' takes a list"),
        ({"or": ["page"]}, "dict of fields"),
        ({"not": [1]}, "dict of fields"),
        ({"not": {"and": [{"page": {"x\ny": 1}}]}}, r"'x\\ny' is not one of"),
    ],
)
def test_what_is_not_a_filter_is_refused_in_one_line(filter, message):
    with pytest.raises(FilterError, match=message) as caught:
        compile_filter(filter)
    assert "\n" not in str(caught.value)


def test_a_filter_is_parsed_into_a_small_tree():
    tree = parse_filter(
        {
            "page": {"gte": 2, "in": [1, "b", None, 2.5, True]},
            "or": [{"not": {}}, {"source": {"prefix": "a"}, "tag": {"exists": False}}],
        }
    )
    page = All((Compare("page", "gte", 2), OneOf("page", ("b",), (1, 2.5), ("null", "true"))))
    either = AnyOf((Not(All(())), All((Prefix("source", "a"), Exists("tag", False)))))
    assert tree == All((page, either))
    assert fields_of(tree) == {"page", "source", "tag"}
    assert parse_filter({"and": [{"page": {"lt": "b"}}]}) == Compare("page", "lt", "b")


class Kind(str, enum.Enum):  # noqa: UP042 (StrEnum would print as its value)
    PDF = "pdf"


def test_an_enum_stands_for_its_value(tmp_path):
    with index_of(tmp_path, ITEMS) as index:
        assert matches(index, {"kind": Kind.PDF}) == [0, 1]
        assert matches(index, {"kind": {"gt": Kind.PDF}}) == []
        assert matches(index, {"kind": {"gte": Kind.PDF}}) == [0, 1]
        assert matches(index, {"kind": {"prefix": Kind.PDF}}) == [0, 1]


def nested(depth):
    return {"not": nested(depth - 1)} if depth > 1 else {"page": 1}


def test_filters_up_to_the_limits_run_and_beyond_them_are_refused(tmp_path):
    with index_of(tmp_path, ITEMS) as index:
        assert matches(index, nested(MAX_DEPTH)) == [1, 2, 3, 4]  # an odd number of nots
        wide = [
            {"page": {"exists": False, "in": [n, "x", None]}} for n in range(MAX_CONDITIONS // 4)
        ]
        assert matches(index, {"or": wide}) == []
        both = {"or": [nested(MAX_DEPTH - 1)] * MAX_CONDITIONS}
        assert matches(index, both) == [0]  # an even number
        assert matches(index, {"page": {"in": list(range(100_000))}}) == [0, 1, 3]
    with pytest.raises(FilterError, match="nests more than 16 levels"):
        compile_filter(nested(MAX_DEPTH + 1))
    with pytest.raises(FilterError, match="nests more than 16 levels"):
        compile_filter(nested(900))
    with pytest.raises(FilterError, match=f"more than {MAX_CONDITIONS} conditions"):
        compile_filter({"or": [{"page": 1}] * (MAX_CONDITIONS + 1)})
    with pytest.raises(FilterError, match=f"more than {MAX_CONDITIONS} conditions"):
        compile_filter({"or": [{"page": {"in": []}}] * (MAX_CONDITIONS + 1)})


def test_values_and_names_never_become_part_of_the_sql():
    condition = compile_filter(
        {"'; DROP": {"in": ["'); DROP TABLE items; --"], "prefix": "' OR 1"}}
    )
    assert "DROP" not in condition.sql
    assert "OR 1" not in condition.sql
