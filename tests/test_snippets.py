from hypothesis import given
from hypothesis import strategies as st

from metaembed.snippets import snippet


def test_the_words_of_the_query_are_in_the_window():
    text = "nothing here. " * 50 + "A whale sings in the deep. " + "nothing there. " * 50
    assert "whale sings" in snippet(text, "song of the whale")


def test_a_short_text_is_shown_whole_on_one_line():
    assert snippet("two\nlines", "x") == "two lines"


@given(st.text(), st.text(), st.integers(20, 80))
def test_a_snippet_is_short_and_made_of_the_text(text, query, width):
    shown = snippet(text, query, width=width)
    assert len(shown) <= width + 4
    assert shown.removeprefix("… ").removesuffix(" …").strip() in " ".join(text.split())
