"""The words of the items: ranking by BM25, odd queries, filters, and catalogs without texts."""

import math
import re
import sqlite3
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaembed.errors import IndexFormatError, IndexMismatchError
from metaembed.index import texts as module
from metaembed.index.database import Database
from metaembed.index.texts import Texts, query_words

WHALES = {
    1: "The whale sings.",
    2: "A whale, a whale.",
    3: "Ships sail the sea; the sea is wide.",
    4: "Nobody sings here.",
}
WORDS = ["ant", "bee", "cat", "dog", "elk", "fox"]
DOCUMENTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=12)
QUERIES = st.lists(st.sampled_from([*WORDS, "gnu"]), max_size=5).map(" ".join)


@pytest.fixture
def database(tmp_path):
    made = new_database(tmp_path / "idx")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    made = new_database(tmp_path_factory.mktemp("shared") / "idx")
    yield made
    made.close()


def new_database(folder):
    folder.mkdir()
    path = folder / "catalog.sqlite"
    Database.create(path, ["PRAGMA user_version = 2"])
    made = opened(path)
    made.execute("PRAGMA synchronous = OFF")  # the tests commit often
    return made


def opened(path):
    return Database(path, format_versions=[2])


def filled(database, contents):
    """The texts of `contents` {sequence: text}, and no others."""
    texts = Texts(database, name="idx")
    with database.writing():
        if texts.exist():
            database.execute("DELETE FROM texts")
        texts.add(contents.items())
    return texts


def ranked(texts, query, limit=10, allowed=None):
    return texts.rank(query, limit=limit, allowed=allowed).sequences.tolist()


def hits(ranking):
    return list(zip(ranking.sequences.tolist(), ranking.scores.tolist(), strict=True))


def bm25(contents, query):
    """BM25 with k1 1.2 and b 0.75 as SQLite documents it, for words without endings."""
    counts = {sequence: Counter(text.split()) for sequence, text in contents.items()}
    mean = sum(count.total() for count in counts.values()) / max(1, len(counts))
    scores = {}
    for sequence, count in counts.items():
        for word in set(query.split()) & count.keys():
            holders = sum(word in other for other in counts.values())
            idf = max(1e-6, math.log((len(counts) - holders + 0.5) / (holders + 0.5)))
            damping = 1.2 * (1 - 0.75 + 0.75 * count.total() / mean)
            share = idf * count[word] * 2.2 / (count[word] + damping)
            scores[sequence] = scores.get(sequence, 0.0) + share
    return scores


def test_a_ranking_is_the_bm25_of_its_words_by_hand(database):
    # 6 items of 2 words each: "whale" is in 1 of them, so idf = ln(5.5 / 1.5), and in 2 words of
    # mean length it occurs twice: 2 * 2.2 / (2 + 1.2).
    contents = {n: "sea ship" for n in range(2, 7)} | {1: "whale whale"}
    texts = filled(database, contents)
    score = pytest.approx(math.log(5.5 / 1.5) * 4.4 / 3.2)
    assert hits(texts.rank("Whale?", limit=10)) == [(1, score)]


def test_items_that_share_rarer_words_come_first(database):
    texts = filled(database, WHALES)
    assert ranked(texts, "wide whale") == [3, 2, 1]
    assert ranked(texts, "the sea", limit=1) == [3]
    assert ranked(texts, "aeroplane") == []


def test_word_endings_case_and_accents_do_not_matter(database):
    texts = filled(database, {1: "Singing ÉLÈVES", 2: "cafe\u0301", 3: "ΟΔΟΣ", 4: "हिन्दी भाषा"})
    assert ranked(texts, "sing") == [1]
    assert ranked(texts, "eleve") == [1]
    assert ranked(texts, "café") == ranked(texts, "CAFE") == [2]
    assert ranked(texts, "οδος") == [3]
    assert ranked(texts, "हिन्दी") == [4]
    assert ranked(texts, "ह") == []  # a letter of that word


def test_scripts_without_spaces_are_found_by_neighbouring_characters(database):
    contents = {1: "東京都に住むPython入門", 2: "京東と都", 3: "ภาษาไทยง่าย", 4: "plain words"}
    texts = filled(database, contents)
    assert ranked(texts, "東京") == [1]
    assert ranked(texts, "入門 python") == [1]
    assert sorted(ranked(texts, "都")) == [1, 2]
    assert ranked(texts, "ไทย") == [3]
    assert texts.text_of([1, 2, 3, 4]) == contents


def test_equal_scores_come_in_insertion_order(database):
    texts = filled(database, {n: "same words" for n in (5, 3, 9, 1)} | {20: "other"})
    assert ranked(texts, "words") == [1, 3, 5, 9]
    assert ranked(texts, "words", limit=2) == [1, 3]


def test_texts_come_back_as_they_were(database):
    texts = filled(database, WHALES)
    assert texts.text_of([3, 1, 7]) == {1: WHALES[1], 3: WHALES[3]}
    assert texts.text_of(np.array([4])) == {4: WHALES[4]}
    assert texts.text_of([]) == {}


def test_a_catalog_without_texts_has_none_and_is_not_changed_by_asking(database):
    texts = Texts(database, name="idx")
    assert not texts.exist()
    assert texts.text_of([1]) == {}
    assert ranked(texts, "whale") == []
    with database.writing():
        texts.remove([1])
        texts.optimize()
        texts.add([])
    assert not texts.exist()


def test_what_is_removed_is_as_if_it_had_never_been_there(database, tmp_path):
    other = new_database(tmp_path / "other")
    less = filled(other, {n: WHALES[n] for n in (1, 3)})
    texts = filled(database, WHALES)
    with database.writing():
        texts.remove(np.array([2, 4, 99]))
    assert texts.text_of([1, 2, 3, 4]) == {n: WHALES[n] for n in (1, 3)}
    for query in ("whale", "the sea sings"):
        assert hits(texts.rank(query, limit=9)) == hits(less.rank(query, limit=9))
    other.close()


def test_merging_changes_no_ranking(database):
    texts = Texts(database, name="idx")
    for n in range(20):
        with database.writing():
            texts.add([(n + 1, f"whale number{n} " * (n % 3 + 1))])
    before = texts.rank("whale number7", limit=50)
    with database.writing():
        texts.optimize()
    after = texts.rank("whale number7", limit=50)
    assert hits(before) == hits(after)
    assert before.sequences[0] == 8


def test_a_change_is_undone_with_its_transaction(database):
    texts = Texts(database, name="idx")
    with suppress(ZeroDivisionError), database.writing():
        texts.add([(1, "lost")])
        raise ZeroDivisionError
    assert not texts.exist()
    filled(database, WHALES)
    with suppress(ZeroDivisionError), database.writing():
        texts.remove([1, 2])
        texts.add([(9, "whale")])
        raise ZeroDivisionError
    assert sorted(ranked(texts, "whale")) == [1, 2]


def test_another_connection_sees_what_was_committed(database, tmp_path):
    reader = opened(tmp_path / "idx" / "catalog.sqlite")
    seen = Texts(reader, name="idx")
    assert ranked(seen, "whale") == []
    texts = filled(database, WHALES)
    with reader.reading():
        assert sorted(ranked(seen, "whale")) == [1, 2]
    with database.writing():
        texts.remove([1])
    with reader.reading():
        assert ranked(seen, "whale") == [2]
    reader.close()


@pytest.mark.parametrize(
    "query",
    [
        *('whale"', '"whale', "whale*", "^whale", "text:whale", "{text}: whale", "-whale"),
        *("NEAR(whale)", "whale AND zebra", "whale NOT whale", "(whale", "whale) OR", "whale;--"),
        *("whale\0zebra", "texts MATCH whale", "wha\ud800le whale", "'whale'", "whale + zebra"),
    ],
)
def test_no_syntax_leaks_in(database, query):
    assert sorted(ranked(filled(database, WHALES), query)) == [1, 2]


@pytest.mark.parametrize("query", ["", " ", '"', "?!…—«»", "\0", "🐋🐳", "*", "\ud800", "\x1f"])
def test_a_query_without_words_finds_nothing(database, query):
    assert query_words(query) == []
    assert ranked(filled(database, WHALES), query) == []


@pytest.mark.parametrize("word", ["AND", "or", "NOT", "NEAR", "rank", "texts", "text"])
def test_words_of_the_syntax_are_words(database, word):
    assert ranked(filled(database, {**WHALES, 7: f"x {word.lower()} y"}), word)[0] in (7, 3, 2)
    assert ranked(filled(database, {1: "whale", 2: word}), word) == [2]


def test_a_long_query_counts_its_first_words(database):
    many = " ".join(f"word{n}" for n in range(100_000))
    assert len(query_words(many)) == module.MAX_QUERY_WORDS
    texts = filled(database, {1: "word3", 2: f"word{module.MAX_QUERY_WORDS}"})
    assert ranked(texts, many) == [1]
    assert len(query_words("x" * 10**6)[0]) == module.MAX_QUERY_LENGTH + 2
    assert len(query_words("whale Whale WHALE " * 50 + "song")) == 2


def test_a_filter_applies_before_the_ranking_is_cut(database):
    texts = filled(database, {n: "whale" for n in range(1, 50)} | {60: "ship", 61: "ship"})
    assert ranked(texts, "whale", limit=2, allowed=np.array([40, 45, 48, 61])) == [40, 45]
    assert ranked(texts, "whale", allowed=np.array([], np.int64)) == []
    assert ranked(texts, "whale", allowed=np.array([61, 2**61])) == []


def test_frequent_words_bring_no_items_where_rarer_ones_bring_enough(database, monkeypatch):
    contents = {n: "the sea" for n in range(1, 30)}
    contents |= {n: "the whale" for n in (31, 32, 33)} | {34: "a whale", 40: "nobody"}
    texts = filled(database, contents)
    assert len(ranked(texts, "the whale", limit=50)) == 33
    monkeypatch.setattr(module, "ENOUGH_ROWS", 3)
    # "whale" is in 4 items; "the" only counts, and in more than half of the items it counts little.
    assert ranked(texts, "the whale", limit=3) == [31, 32, 33]
    assert ranked(texts, "the whale", limit=4) == [31, 32, 33, 34]
    # As many as are asked for are found, if there are any.
    assert len(ranked(texts, "the whale", limit=20)) == 20
    assert len(ranked(texts, "the sea", limit=20)) == 20
    # So it is among the allowed items, none of which has the rarer word.
    assert ranked(texts, "the whale", limit=3, allowed=np.arange(5, 20)) == [5, 6, 7]


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, QUERIES)
def test_scores_equal_the_definition(shared, documents, query):
    contents = dict(enumerate(documents, start=1))
    texts = filled(shared, contents)
    found = hits(texts.rank(query, limit=50))
    assert dict(found) == pytest.approx(bm25(contents, query))
    assert found == sorted(found, key=lambda hit: (-hit[1], hit[0]))


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, QUERIES, st.sets(st.integers(1, 14)), st.integers(1, 5), st.integers(1, 12))
def test_a_filter_leaves_scores_and_order(shared, documents, query, allowed, enough, limit):
    contents = dict(enumerate(documents, start=1))
    texts = filled(shared, contents)
    everything = hits(texts.rank(query, limit=50))
    some = np.array(sorted(allowed), dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        exact = hits(texts.rank(query, limit=50, allowed=some))
        patch.setattr(module, "ENOUGH_ROWS", enough)
        cut = hits(texts.rank(query, limit=limit, allowed=some))
    assert exact == [hit for hit in everything if hit[0] in allowed]
    # With frequent words set aside: as many, the same scores, the same order.
    assert len(cut) == min(limit, len(exact))
    assert cut == [hit for hit in exact if hit in cut]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=30))
def test_any_text_comes_back_and_any_query_is_answered(shared, documents, query):
    contents = {
        n: re.sub("[\0\x1f\ud800-\udfff]", "", text) for n, text in enumerate(documents, start=1)
    }
    texts = filled(shared, contents)
    assert texts.text_of(list(contents)) == contents
    assert set(ranked(texts, query)) <= contents.keys()
    assert texts.rank(query, limit=3).scores.dtype == np.float64


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12))
def test_a_text_is_found_by_itself(shared, word):
    texts = filled(shared, {1: word, 2: "…"})
    # SQLite's Unicode is older than Python's: what it does not know is no word to it.
    known = shared.execute(
        "SELECT count(*) FROM texts_docsize WHERE id = 1 AND hex(sz) <> '00'"
    ).fetchone()[0]
    assert ranked(texts, word) == [1] * known


@pytest.mark.parametrize("text", ["a\0b", "half a pair \ud800"])
def test_a_text_that_sqlite_cannot_hold_is_refused(database, text):
    texts = Texts(database, name="idx")
    with pytest.raises(IndexMismatchError, match="NUL or half a surrogate pair") as raised:
        filled(database, {1: "fine", 2: text})
    assert "\n" not in str(raised.value)
    assert not texts.exist()


def test_without_fts5_adding_and_reading_say_so(database, monkeypatch, tmp_path):
    # A module that no SQLite has stands for the one that this SQLite lacks.
    monkeypatch.setattr(module, "SCHEMA", module.SCHEMA.replace("fts5", "fts0"))
    with pytest.raises(IndexFormatError, match="need SQLite with FTS5") as raised:
        filled(database, WHALES)
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    filled(database, WHALES)
    connection = sqlite3.connect(tmp_path / "idx" / "catalog.sqlite")
    with connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'fts0') WHERE name = 'texts'"
        )
    connection.close()
    other = opened(tmp_path / "idx" / "catalog.sqlite")
    texts = Texts(other, name="idx")
    for ask in (
        lambda: texts.rank("whale", limit=3),
        lambda: texts.text_of([1]),
        lambda: texts.remove([1]),
        texts.optimize,
    ):
        with pytest.raises(IndexFormatError, match="need SQLite with FTS5"), other.writing():
            ask()
    other.close()


@pytest.mark.parametrize(
    "schema",
    ["CREATE TABLE texts (text)", "CREATE VIEW texts AS SELECT 1 AS rowid, x'00' AS text"],
)
def test_a_table_of_another_kind_is_damage(database, schema):
    with database.writing():
        database.execute(schema)
    texts = Texts(database, name="idx")
    with pytest.raises(IndexFormatError, match="damaged"), database.reading():
        texts.rank("whale", limit=3)


def test_a_text_that_is_none_is_damage(database):
    texts = filled(database, WHALES)
    with database.writing():
        database.execute("UPDATE texts_content SET c0 = x'ff' WHERE id = 1")
    with pytest.raises(IndexFormatError, match="damaged"), database.reading():
        texts.text_of([1])
