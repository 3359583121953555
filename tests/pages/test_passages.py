"""Passages against hand-worked cuts and the laws that a split text keeps."""

import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.errors import ItemError
from metaembed.pages import Passage, split_passages


def words(text):
    """Words and signs, as most tokenizers begin."""
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def words_with_their_space(text):
    """As SentencePiece has it: the space before a word belongs to the token."""
    return [match.span() for match in re.finditer(r"\s?\w+|\s?[^\w\s]|\s", text)]


def utf8_bytes(text):
    """As byte-level tokenizers have it: a character of several bytes is several tokens."""
    return [
        (position, position + 1)
        for position, character in enumerate(text)
        for _ in character.encode("utf-8", "replace")
    ]


def with_empty_tokens(text):
    return [
        (0, 0),
        *(span for start, stop in words(text) for span in ((start, start), (start, stop))),
    ]


TOKENIZERS = [words, words_with_their_space, utf8_bytes, with_empty_tokens]
texts = st.one_of(
    st.text(),
    st.text(st.sampled_from('ab .!\n。é🙂\t’"')),
    st.lists(st.sampled_from(["one", "two.", "three!", "\n", "\n\n", "a-b", "x" * 30])).map(
        " ".join
    ),
)


def split(text, *, max_tokens, overlap, token_offsets=words):
    return split_passages(text, token_offsets=token_offsets, max_tokens=max_tokens, overlap=overlap)


def test_a_passage_ends_at_a_sentence_and_the_next_repeats_its_last_words():
    text = "One two three. Four five six seven eight nine."
    assert split(text, max_tokens=6, overlap=2) == [
        Passage("One two three.", 0, 14),
        Passage("three. Four five six seven", 8, 34),
        Passage("six seven eight nine.", 25, 46),
    ]


def test_a_text_that_fits_is_one_passage_without_its_outer_space():
    assert split("  a b \n", max_tokens=2, overlap=1) == [Passage("a b", 2, 5)]


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000\n"])
def test_blank_text_has_no_passages(text):
    assert split(text, max_tokens=4, overlap=0) == []


def test_text_of_which_the_tokenizer_sees_nothing_is_still_one_passage():
    passages = split("…", max_tokens=1, overlap=0, token_offsets=lambda _: [])
    assert passages == [Passage("…", 0, 1)]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a b c d e f g\n\nh. i\nj k l m n o", "a b c d e f g"),
        ("a b c d e f g h.\ni j\nk l m n o", "a b c d e f g h."),
        ("a b c d e f g\nh i j k l m n o", "a b c d e f g"),
        ("a b\n\nc d e f g h. i j k l m n o", "a b\n\nc d e f g h."),  # not before the last third
        ("a b c d e f g h i-j k l m n o", "a b c d e f g h"),
    ],
)
def test_a_passage_ends_at_a_paragraph_else_a_sentence_else_a_line_else_a_word(text, first):
    assert split(text, max_tokens=10, overlap=0)[0].text == first


def test_a_word_is_cut_only_when_it_alone_does_not_fit():
    characters = split("abc defghi jk", max_tokens=4, overlap=0, token_offsets=utf8_bytes)
    assert [passage.text for passage in characters] == ["abc", "def", "ghi", "jk"]


def test_a_character_of_more_tokens_than_fit_is_a_passage_of_its_own():
    passages = split("a🙂é", max_tokens=2, overlap=0, token_offsets=utf8_bytes)
    assert [passage.text for passage in passages] == ["a", "🙂", "é"]


def test_an_overlap_begins_at_a_sentence_where_one_begins():
    text = "a b c d e f g h. i j k l m n o p q r s"
    first, second, *_ = split(text, max_tokens=12, overlap=6)
    assert first.text.endswith("h.")
    assert second.text.startswith("d e f")  # no sentence begins in the first half of the overlap
    first, second, *_ = split("a b c d e f. g h i j k l m n o p q", max_tokens=12, overlap=6)
    assert second.text.startswith("g h")


def test_overlap_is_held_to_half_a_passage():
    assert split("a b c d e f g h", max_tokens=4, overlap=99) == split(
        "a b c d e f g h", max_tokens=4, overlap=2
    )


def test_a_window_without_room_is_refused():
    with pytest.raises(ItemError, match="at most 0 tokens"):
        split("a", max_tokens=0, overlap=0)


@pytest.mark.parametrize("token_offsets", TOKENIZERS)
@given(text=texts, max_tokens=st.integers(4, 12), overlap=st.integers(0, 14))
def test_passages_hold_all_of_the_text_and_fit(token_offsets, text, max_tokens, overlap):
    passages = split(text, max_tokens=max_tokens, overlap=overlap, token_offsets=token_offsets)
    seen = set()
    spans = token_offsets(text)
    for passage in passages:
        assert passage.text == text[passage.start : passage.stop]
        assert passage.text == passage.text.strip() != ""
        seen.update(range(passage.start, passage.stop))
        inside = [
            (start, stop)
            for start, stop in spans
            if start < passage.stop and max(stop, start + 1) > passage.start
        ]
        assert len(inside) <= max_tokens
    assert all(at in seen for at, character in enumerate(text) if not character.isspace())
    for before, after in itertools.pairwise(passages):
        assert before.start <= after.start
        assert before.stop < after.stop


@given(text=texts, max_tokens=st.integers(2, 12), overlap=st.integers(0, 6))
def test_neighbours_share_at_most_the_overlap(text, max_tokens, overlap):
    passages = split(text, max_tokens=max_tokens, overlap=overlap)
    for before, after in itertools.pairwise(passages):
        shared = words(text[after.start : before.stop])
        assert len(shared) <= overlap


def test_a_million_words_split_in_linear_time():
    text = "Lorem ipsum dolor sit amet. " * 200_000
    spans = words(text)
    begin = time.process_time()
    passages = split(text, max_tokens=512, overlap=64, token_offsets=lambda _: spans)
    assert time.process_time() - begin < 5
    assert passages[-1].text.endswith("dolor sit amet.")
