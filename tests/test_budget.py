import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.budget import PAPER_GROUPS, Budget, parse_groups
from metaembed.errors import BudgetError

SIDES = st.integers(1, 999)


def test_a_budget_reads_and_prints_as_query_x_candidate():
    assert Budget.parse("4x8") == Budget(query=4, candidate=8)
    assert str(Budget(16, 64)) == "16x64"


@given(SIDES, SIDES)
def test_printing_and_parsing_are_inverse(query, candidate):
    assert Budget.parse(str(Budget(query, candidate))) == Budget(query, candidate)


@pytest.mark.parametrize(
    "text",
    ["", "4", "x", "0x4", "4x0", "-1x4", "4X8", "4 x 8", "4x8 ", "4x8x2", "abc", "٤x٨", "1e3x4"],
)
def test_anything_else_is_refused_in_one_line_that_shows_the_form(text):
    with pytest.raises(BudgetError, match="for example 4x8") as caught:
        Budget.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 4, (4, 8)])
def test_values_that_are_not_text_are_refused(value):
    with pytest.raises(BudgetError):
        Budget.parse(value)


def test_a_budget_built_with_zero_is_refused_where_it_is_used():
    with pytest.raises(BudgetError):
        Budget.parse(Budget(0, 4))


def test_a_budget_that_does_not_fit_names_what_is_allowed():
    with pytest.raises(BudgetError, match="16x64 is larger than the index provides .4x8."):
        Budget(16, 64).require_fits(Budget(4, 8), of="the index")
    assert Budget(4, 8).fits(Budget(4, 8))
    assert not Budget(5, 8).fits(Budget(4, 8))


def test_groups_are_nested_smallest_first():
    assert parse_groups(["1x1", "2x4", "4x8", "8x16", "16x64"]) == PAPER_GROUPS
    assert parse_groups(["8x16", "8x32"]) == (Budget(8, 16), Budget(8, 32))


@pytest.mark.parametrize("groups", [[], ["2x4", "1x1"], ["1x1", "1x1"], ["1x4", "2x2"]])
def test_groups_that_are_not_nested_are_refused(groups):
    with pytest.raises(BudgetError):
        parse_groups(groups)
