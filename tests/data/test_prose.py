"""Prose told from parameters, code and markup."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.data.prose import Paragraph, clean, normalised, paragraphs, sentences

NUMPYDOC = inspect.cleandoc(
    """
    Fit a line through :math:`points`.

    Outliers are *not* removed::

        fit(points)

    Parameters
    ----------
    points : array_like
        The points to fit. One per row.

    Notes
    -----
    The residual is minimal.

    - a list item

    .. versionadded:: 1.2
        Weights.

    >>> fit([1, 2])
    3
    """
)

GOOGLE = inspect.cleandoc(
    """
    Fit a line.

    Args:
        points (`list`): The points to fit.

    Returns:
        The line.

    ```python
    fit(points)
    ```
    """
)


def test_numpydoc_worked_by_hand():
    assert list(paragraphs(NUMPYDOC)) == [
        Paragraph("Fit a line through points.", True),
        Paragraph("Outliers are not removed::", True),
        Paragraph("Parameters", False),
        Paragraph("points: array_like", False),
        Paragraph("The points to fit. One per row.", False),
        Paragraph("Notes", False),
        Paragraph("The residual is minimal.", True),
        Paragraph("- a list item", False),
    ]


def test_google_sections_are_not_prose():
    assert [paragraph.text for paragraph in paragraphs(GOOGLE) if paragraph.is_prose] == [
        "Fit a line."
    ]
    assert "fit(points)" not in " ".join(paragraph.text for paragraph in paragraphs(GOOGLE))


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        (":class:`~a.B` and :py:func:`text <a.c>`", "a.B and text"),
        ("[`~a.B`] and [docs](https://x.org/a_(b))", "a.B and docs"),
        ("``x`` is **very** *small* <br/> [1]_ `Link <https://x.org>`_", "x is very small Link"),
        ("see https://example.org/a?b for `more`_ .", "see for more."),
        ("call __init__ or a_b * c", "call __init__ or a_b * c"),
        ("%(before)s text\n  over   lines", "text over lines"),
    ],
)
def test_markup_is_removed(marked, plain):
    assert clean(marked) == plain


def test_sentences_end_where_a_reader_ends_them():
    text = "Use e.g. NumPy 1.2. See fig. 3 for J. Doe. Is it? Yes."
    assert sentences(text) == [
        "Use e.g. NumPy 1.2.",
        "See fig. 3 for J. Doe.",
        "Is it?",
        "Yes.",
    ]


@given(st.text(alphabet='aZ .!?0"(', max_size=80))
def test_sentences_lose_no_letter(text):
    letters = [character for character in text if character.isalnum()]
    assert [c for sentence in sentences(text) for c in sentence if c.isalnum()] == letters


@given(st.text(alphabet="ab:`*_<>[]() \n-=#.|~", max_size=200))
def test_any_markup_is_survived(text):
    for paragraph in paragraphs(text):
        assert paragraph.text == " ".join(paragraph.text.split())


def test_normalised_texts_differ_only_in_words():
    assert normalised("Sort a  `list_of` Names!") == normalised("sort (a) list of names")
