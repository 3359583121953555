"""Manuals cut at their headings."""

import pytest

from metaembed.data.manuals import sections

RST = """
=====
Title
=====

Preface.

A section
---------
Body with code::

    # not a heading

Last
====
End.
"""

MARKDOWN = """Badges first.

# Title
Preface.

## A section ##
```sh
# not a heading
pip install it
```
After.

### Empty
### Last
End.
"""


def test_restructured_text_is_cut_at_underlined_titles():
    assert list(sections(RST)) == [
        ("Title", "Preface."),
        ("A section", "Body with code::\n\n    # not a heading"),
        ("Last", "End."),
    ]


def test_markdown_is_cut_at_hashes_outside_of_code():
    assert list(sections(MARKDOWN)) == [
        ("", "Badges first."),
        ("Title", "Preface."),
        ("A section", "```sh\n# not a heading\npip install it\n```\nAfter."),
        ("Last", "End."),
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# Only a heading", "====\n"])
def test_a_manual_without_text_has_no_sections(text):
    assert list(sections(text)) == []
