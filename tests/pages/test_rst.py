"""reStructuredText sections, and nothing left unread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.pages.rst import rst_pages
from tests.pages.samples import first_lost_word

GUIDE = """\
=====
Guide
=====
Welcome.

Install
=======
Run it::

    # not a heading
    ----

Sub
~~~
Text.

----

More text.

Usage
=====
needle"""


def sections(text):
    return [(page.title, page.place) for page in rst_pages(text)]


def test_sections_are_cut_at_headings_and_levels_follow_their_first_use():
    assert sections(GUIDE) == [
        ("Guide", "lines 1-4"),
        ("Guide › Install", "lines 6-11"),
        ("Guide › Install › Sub", "lines 13-19"),
        ("Guide › Usage", "lines 21-23"),
    ]
    *_, last = rst_pages(GUIDE)
    assert last.text == "Usage\n=====\nneedle"


@pytest.mark.parametrize(
    "text",
    [
        "text\n\n----\n\ntext",
        "    quoted\n------",
        "=====  =====\na      b\n=====  =====",
        "Too long for its line\n--",
        "-----\n=====",
    ],
)
def test_what_is_no_heading_gives_no_title(text):
    assert {title for title, _ in sections(text)} == {""}


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("A\n=\ntext", ["A"]),
        ("A title\n----\ntext", ["A title"]),  # docutils warns and takes it
        ("=======\n  Indented\n=======\ntext", ["Indented"]),
        ("A\n=\na\n\nB\n-\nb\n\nC\n-\nc\n\nD\n=\nd", ["A", "A › B", "A › C", "D"]),
        ("A\n=\n\nB\n-\nb", ["A › B"]),
    ],
)
def test_headings_are_found(text, titles):
    assert [title for title, _ in sections(text)] == titles


LINES = ["", "Title", "=====", "-----", "~~~~~", "  text", "----  ----", "x" * 1_600]


@given(st.lists(st.one_of(st.sampled_from(LINES), st.text())).map("\n".join))
def test_nothing_is_left_unread(text):
    pages = list(rst_pages(text))
    assert first_lost_word(text.split(), pages) is None
    assert len({page.place for page in pages}) == len(pages)
