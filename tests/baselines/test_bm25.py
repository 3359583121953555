"""BM25 against numbers worked by hand and the plain formula."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaembed.baselines.bm25 import BM25, words

TEXTS = [
    "the cat sat on the mat",
    "a dog chased the cat and the dog barked",
    "json.dumps serializes an object; JSONEncoder encodes it",
    "",
]
vocabulary = st.sampled_from(["cat", "dog", "the", "sort_keys", "keys", "XMLParser", "parser"])
text = st.lists(vocabulary, max_size=8).map(" ".join)


def oracle(query, texts, *, k1=1.2, b=0.75):
    """The formula, spelled out. Slow on purpose."""
    tokens = [list(words(text)) for text in texts]
    mean_length = sum(map(len, tokens)) / len(tokens)
    scores = []
    for candidate in tokens:
        score = 0.0
        for word in words(query):
            tf, df = candidate.count(word), sum(word in other for other in tokens)
            if tf:
                idf = math.log(1 + (len(tokens) - df + 0.5) / (df + 0.5))
                score += idf * tf / (tf + k1 * (1 - b + b * len(candidate) / mean_length))
        scores.append(score)
    return scores


def test_a_score_is_inverse_frequency_times_damped_count():
    scores = BM25(["cat", "dog"]).scores(["cat"])
    # idf = log(1 + 1.5 / 1.5); one word in a candidate of mean length: 1 / (1 + 1.2)
    assert scores.tolist() == [[pytest.approx(math.log(2) / 2.2), 0.0]]


@pytest.mark.parametrize("query", ["cat", "the the dog", "json encoder", "no such words", ""])
def test_agrees_with_the_formula(query):
    np.testing.assert_allclose(BM25(TEXTS).scores([query])[0], oracle(query, TEXTS), rtol=1e-6)


@given(st.lists(text, min_size=1, max_size=6).filter(any), text)
def test_agrees_with_the_formula_on_any_text(texts, query):
    np.testing.assert_allclose(BM25(texts).scores([query])[0], oracle(query, texts), rtol=1e-5)


def test_parameters_reach_the_formula():
    scores = BM25(TEXTS, k1=0.9, b=0.4).scores(["dog"])[0]
    np.testing.assert_allclose(scores, oracle("dog", TEXTS, k1=0.9, b=0.4), rtol=1e-6)


def test_each_query_is_scored_alone():
    index, queries = BM25(TEXTS), ["cat", "dog barked", ""]
    together = index.scores(queries)
    assert together.shape == (3, 4)
    assert together.dtype == np.float32
    for query, line in zip(queries, together, strict=True):
        np.testing.assert_array_equal(line, index.scores([query])[0])


def test_order_of_candidates_only_orders_the_scores():
    forwards, backwards = BM25(TEXTS), BM25(TEXTS[::-1])
    scores = forwards.scores(["the cat"])
    np.testing.assert_allclose(scores, backwards.scores(["the cat"])[:, ::-1])


def test_identifiers_are_found_whole_and_in_parts():
    assert list(words("HTTPServer2Go")) == ["httpserver2go", "http", "server2", "go"]
    assert list(words("__init__")) == ["__init__"]
    assert list(words("naïve café")) == ["naïve", "café"]
    scores = BM25(TEXTS).scores(["encoder", "JSONEncoder"])
    assert (scores[:, 2] > 0).all()


def test_stop_words_can_be_left_out():
    assert BM25(TEXTS).scores(["the"]).any()
    assert not BM25(TEXTS, without_stop_words=True).scores(["the"]).any()


def test_no_candidates_and_no_words_give_no_scores():
    assert BM25([]).scores(["cat"]).shape == (1, 0)
    assert BM25(["", ""]).scores(["cat"]).tolist() == [[0.0, 0.0]]
    assert BM25(TEXTS).scores([]).shape == (0, 4)
