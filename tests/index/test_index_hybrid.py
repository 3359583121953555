"""Texts of items in the index, and searches by vectors and words together."""

import numpy as np
import pytest

from metaembed.budget import Budget
from metaembed.errors import IndexMismatchError
from metaembed.index import Index
from tests.index.examples import GROUPS, grid

TEXTS = ["a whale in the sea", "the sea at night", None, "a whale, a whale!", "nothing of it", ""]
IDS = list("abcdef")


@pytest.fixture
def index(tmp_path):
    """The vectors put the items in the order of their ids."""
    vectors = np.zeros((6, 4, 4), np.float32)
    vectors[:, :, 0] = np.arange(6, 0, -1)[:, None]
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS) as index:
        index.add(IDS, vectors, [{"n": n} for n in range(6)], TEXTS)
        yield index


QUERY = np.eye(4, dtype=np.float32)[None, :1].repeat(2, axis=1)


def found(index, text, **options):
    return [(hit.id, hit.score) for hit in index.search(QUERY, texts=[text], **options)[0]]


def test_a_hybrid_search_worked_by_hand(index):
    """By words: d before a. By vectors: a, b, c, …; so a has ranks 1 and 2, d has 4 and 1."""
    ids = [id for id, _ in found(index, "whale")]
    assert ids == ["a", "d", "b", "c", "e", "f"]
    scores = dict(found(index, "whale"))
    assert scores["a"] == pytest.approx(1 / 11 + 1 / 12)
    assert scores["d"] == pytest.approx(1 / 14 + 1 / 11)
    assert scores["b"] == pytest.approx(1 / 12)


def test_words_that_nothing_has_leave_the_order_of_the_vectors(index):
    for text in ("", "unheard", '"*:NEAR('):
        assert [id for id, _ in found(index, text)] == IDS


def test_a_filter_holds_for_both_rankings(index):
    ids = [id for id, _ in found(index, "whale sea", filter={"n": {"gte": 1, "lt": 4}})]
    assert sorted(ids) == ["b", "c", "d"]
    assert ids[0] == "b"  # first by vectors, and it has the sea


def test_texts_come_back_and_go_with_their_items(index):
    assert index.texts(["d", "c", "a"]) == ["a whale, a whale!", None, "a whale in the sea"]
    assert index.texts(["f"]) == [""]
    index.delete(["d"])
    assert [id for id, _ in found(index, "whale")][:1] == ["a"]
    index.upsert(["a"], grid(1, 4, 4), texts=["a walrus"])
    index.compact()
    assert index.texts(["a"]) == ["a walrus"]
    assert found(index, "walrus")[0][0] == "a"
    with pytest.raises(IndexMismatchError, match="no item 'd'"):
        index.texts(["d"])
    assert index.verify() == []


def test_texts_are_copied_and_merged(tmp_path, index):
    with index.copy(tmp_path / "copy", budget=Budget(1, 1), dtype="int8") as copy:
        assert copy.texts(IDS) == TEXTS
    with Index.create(tmp_path / "other", dim=4, groups=GROUPS) as other:
        other.add(["x", "a"], grid(2, 4, 4), texts=["an old whale", "older"])
        assert other.merge([index], replace=True) == 6
        assert other.texts(["x", "a", "c"]) == ["an old whale", "a whale in the sea", None]
        assert other.texts(IDS) == TEXTS
        assert other.verify() == []


def test_a_build_takes_texts_with_its_batches(tmp_path):
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS) as index:
        index.extend([(["a"], grid(1, 4, 4), None, ["one"]), (["b"], grid(1, 4, 4), None)])
        assert index.texts(["a", "b"]) == ["one", None]


@pytest.mark.parametrize("texts", ["ab", ["one"], ["one", 2], ["one", "\0"], ["one", "\ud800"]])
def test_what_is_not_a_list_of_texts_is_refused(tmp_path, texts):
    with Index.create(tmp_path / "idx", dim=4, groups=GROUPS) as index:
        with pytest.raises(IndexMismatchError, match=r"[Tt]ext") as caught:
            index.add(["a", "b"], grid(2, 4, 4), texts=texts)
        assert "\n" not in str(caught.value)
        assert len(index) == 0


def test_each_query_needs_its_text(index):
    for texts in ("whale", [], ["a", "b"]):
        with pytest.raises(IndexMismatchError, match="list of 1 strings"):
            index.search(QUERY, texts=texts)
