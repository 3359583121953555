"""Markdown sections, and nothing left unread."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.pages.markdown import markdown_pages
from tests.pages.samples import first_lost_word

GUIDE = """\
---
title: Guide
---
Before any heading.

# Guide #
Welcome.

## Install
```sh
# not a heading
pip install it
```

Usage
-----
Call `it`.

### Ending
needle"""


def sections(text):
    return [(page.title, page.place) for page in markdown_pages(text)]


def test_sections_are_cut_at_headings_and_titled_by_their_trail():
    assert sections(GUIDE) == [
        ("", "lines 1-4"),
        ("Guide", "lines 6-7"),
        ("Guide › Install", "lines 9-13"),
        ("Guide › Usage", "lines 15-17"),
        ("Guide › Usage › Ending", "lines 19-20"),
    ]
    *_, last = markdown_pages(GUIDE)
    assert last.text == "### Ending\nneedle"


def test_a_heading_with_nothing_below_it_joins_the_section_that_follows():
    assert sections("# A\n\n## B\nb\n# C") == [("A › B", "lines 1-4"), ("C", "lines 5-5")]


@pytest.mark.parametrize(
    "text",
    [
        "```\n# code\n```",
        "~~~~ python\n# code\n~~~\n# code",
        "1. item\n   ```\n   # code\n   ```",
        "````\n```\n# code\n````",
        "    # indented code",
        "#hashtag",
        "####### seven",
        "text\n\n---\n\ntext",  # a rule
        "- item\n---\ntext",
        "| a |\n---\ntext",
        "---\ntitle: front matter\n---\ntext",
    ],
)
def test_what_is_no_heading_gives_no_title(text):
    assert {title for title, _ in sections(text)} == {""}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# A ##", "A"),
        ("#   C#  ", "C#"),
        ("   ###### deep", "deep"),
        ("A *title*\n===\ntext", "A *title*"),
        ("```x``` code\n\n# A", "A"),
        ("```\n```\n# A", "A"),
        ("# " + "long " * 100, "long " * 23 + "long…"),
    ],
)
def test_headings_are_found(text, title):
    assert sections(text)[-1][0] == title


LINES = [
    "",
    "# A",
    "## B",
    "text words",
    "---",
    "===",
    "```",
    "~~~",
    "- a",
    "   # C #",
    "x" * 1_600,
]


@given(st.lists(st.one_of(st.sampled_from(LINES), st.text())).map("\n".join))
def test_nothing_is_left_unread(text):
    pages = list(markdown_pages(text))
    assert first_lost_word(text.split(), pages) is None
    assert len({page.place for page in pages}) == len(pages)


@pytest.mark.parametrize(
    "text", ["#" + " " * 10**6 + "x", "`" * 10**6, "-" * 10**6 + " x", "# A\n" * 10**5]
)
def test_hostile_text_takes_linear_time(text):
    begin = time.process_time()
    assert first_lost_word(text.split(), markdown_pages(text)) is None
    assert time.process_time() - begin < 3
