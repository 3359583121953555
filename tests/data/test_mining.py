"""Pairs out of one entry."""

import inspect

import pytest

from metaembed.data.mining import heading_pair, sentence_pairs
from metaembed.data.prose import normalised
from metaembed.data.source import Entry

DOC = inspect.cleandoc(
    """
    Return the `n` largest elements of a heap.

    The elements come in descending order. Large heaps are partitioned before anything is sorted.
    Equal elements keep the order in which the caller supplied them. It is fast.

    Parameters
    ----------
    n : int
        Number of elements that the caller wants to receive back.
    """
)
FUNCTION = Entry("heapq", "heapq.largest", "function", DOC, "largest(n)")


def test_a_summary_is_paired_with_the_rest():
    pair = heading_pair(FUNCTION)
    assert pair.query == "Return the n largest elements of a heap"
    assert pair.candidate == (
        "The elements come in descending order. Large heaps are partitioned before anything is "
        "sorted. Equal elements keep the order in which the caller supplied them. It is fast. "
        "Parameters n: int Number of elements that the caller wants to receive back."
    )
    assert pair[2:] == ("heapq", "heapq.largest", "heading")


def test_a_sentence_is_paired_with_the_passage_around_it():
    (pair,) = sentence_pairs(FUNCTION)
    # The only two that are long enough, in prose, and stand on their own.
    assert pair.query in {
        "Large heaps are partitioned before anything is sorted",
        "Equal elements keep the order in which the caller supplied them",
    }
    assert pair.query not in pair.candidate
    assert "Return the n largest elements of a heap. The elements come" in pair.candidate
    assert pair.kind == "sentence"


def test_more_sentences_of_one_entry_are_different_ones():
    text = " ".join(f"Sentence number {word} says what no other does." for word in "abcdefgh")
    entry = Entry("p", "p.f", "function", text, "")
    queries = [pair.query for pair in sentence_pairs(entry, limit=8)]
    assert len(queries) == len(set(queries)) == 2  # one in four of the sentences
    assert queries[:1] == [pair.query for pair in sentence_pairs(entry, limit=1)]


def test_parameters_give_sentences_on_request():
    doc = DOC.replace("Large heaps are", "It is").replace("Equal elements", "They")
    entry = FUNCTION._replace(doc=doc)
    assert list(sentence_pairs(entry)) == []
    (pair,) = sentence_pairs(entry, with_parameters=True)
    assert pair.query == "Number of elements that the caller wants to receive back"


@pytest.mark.parametrize(
    "summary",
    ["Too short.", "Deprecated since the last release.", "Format {name} as the caller wants it."],
)
def test_poor_summaries_are_no_queries(summary):
    assert heading_pair(FUNCTION._replace(doc=f"{summary}\n\n{DOC}")) is None


def test_a_body_must_say_enough_and_something_else():
    summary = DOC.partition("\n")[0]
    assert heading_pair(FUNCTION._replace(doc=f"{summary}\n\nThey are the largest.")) is None
    assert heading_pair(FUNCTION._replace(doc=f"{summary}\n\n{DOC}")) is None


def test_a_section_is_asked_for_by_its_heading():
    section = Entry("rich", "rich readme: Progress bars", "text", DOC, "")
    assert heading_pair(section) is None  # a short heading, and the package adds one word
    named = section._replace(name="rich readme: Drawing progress bars")
    assert heading_pair(named).query == "Drawing progress bars (rich)"
    generic = section._replace(name="rich readme: Code of conduct")
    assert heading_pair(generic) is None


def test_long_texts_are_cut_to_a_window_around_the_sentence():
    filler = " ".join(["Time passes."] * 200)
    sentence = "Exactly one sentence here stands on its own feet."
    entry = Entry("p", "p.f", "function", f"{filler} {sentence} {filler}", "")
    (pair,) = sentence_pairs(entry)
    assert pair.query == sentence.rstrip(".")
    assert len(pair.candidate.split()) == 150
    assert pair.candidate.split()[49] == "passes."
    assert pair.candidate.split()[50] == "Time"
    assert normalised(pair.query) not in normalised(pair.candidate)
    assert len(heading_pair(FUNCTION._replace(doc=f"{DOC}\n\n{filler}")).candidate.split()) == 220
