"""The corpus: no text twice, no package on both sides, the same every time."""

import itertools

import pytest

from metaembed.data.pairs import (
    Pair,
    Seen,
    held_out_pairs,
    is_held_out,
    read_pairs,
    training_pairs,
    with_hard_negatives,
    write_pairs,
)
from metaembed.data.prose import normalised

PACKAGES = frozenset(
    "json csv heapq statistics textwrap pickle io threading queue socket wave inspect".split()  # noqa: SIM905
)


@pytest.fixture(scope="module")
def training():
    return list(training_pairs(keep=PACKAGES.__contains__))


@pytest.fixture(scope="module")
def held_out():
    return list(held_out_pairs(keep=PACKAGES.__contains__))


def texts(pairs):
    return [normalised(text) for pair in pairs for text in (pair.query, pair.candidate)]


def test_no_package_and_no_text_is_on_both_sides(training, held_out):
    assert {pair.package for pair in training} == {"io", "queue", "socket", "wave", "inspect"}
    assert {pair.package for pair in held_out} == PACKAGES - {pair.package for pair in training}
    assert not any(is_held_out(pair.package) for pair in training)
    assert set(texts(training)).isdisjoint(texts(held_out))


def test_every_text_is_there_once(training, held_out):
    for pairs in (training, held_out):
        assert len(set(texts(pairs))) == len(texts(pairs))


def test_an_entry_is_asked_for_once_when_testing(held_out):
    assert len({pair.source for pair in held_out}) == len(held_out)
    assert {pair.kind for pair in held_out} == {"heading", "sentence"}


def test_the_corpus_is_the_same_every_time(training):
    assert list(training_pairs(keep=PACKAGES.__contains__)) == training


def test_a_package_gives_at_most_so_many_of_each_kind():
    few = list(training_pairs(keep="inspect".__eq__, per_package=3))
    assert [pair.kind for pair in few] == ["heading"] * 3 + ["sentence"] * 3
    assert few != list(training_pairs(keep="inspect".__eq__, per_package=3, seed=1))


def make_pair(source, candidate, *, kind="heading", package="p"):
    return Pair(f"query of {source}", candidate, package, source, kind)


def test_templates_of_one_package_count_as_repetitions():
    seen, opening = Seen(), " ".join(f"word{n}" for n in range(30))
    assert seen.admit(make_pair("p.a", f"{opening} a"))
    assert not seen.admit(make_pair("p.b", f"{opening} b"))
    assert seen.admit(make_pair("p.a", f"{opening} c")._replace(query="another sentence of a"))
    assert seen.admit(make_pair("p.d", f"other {opening}"))
    assert not seen.admit(make_pair("p.e", f"Other {opening}!"))


def test_a_hard_negative_is_a_sibling_that_says_something_else(training):
    rows = list(with_hard_negatives(training, seed=0))
    owner = {pair.candidate: pair for pair in training}
    assert len(rows) > 0.9 * len(training)
    for pair, negative in rows:
        sibling = owner[negative]
        assert sibling.source != pair.source
        assert (sibling.package, sibling.kind) == (pair.package, pair.kind)


def test_hard_negatives_follow_the_seed_alone(training):
    first = list(with_hard_negatives(training, seed=0))
    assert list(with_hard_negatives(training, seed=0)) == first
    others = list(with_hard_negatives(training, seed=1))
    assert [pair for pair, _ in others] == [pair for pair, _ in first]
    assert others != first


def test_near_repetitions_and_other_packages_are_no_hard_negatives():
    same = "the very same words about one and the same thing"
    pairs = [
        make_pair("p.a", f"{same} a"),
        make_pair("p.b", f"{same} b"),
        make_pair("p.c", "entirely different text"),
        make_pair("q.a", "of another package", package="q"),
    ]
    negatives = {pair.source: negative for pair, negative in with_hard_negatives(pairs, seed=0)}
    assert negatives.keys() == {"p.a", "p.b", "p.c"}
    assert negatives["p.a"] == negatives["p.b"] == "entirely different text"


def test_written_pairs_are_read_back(tmp_path, training):
    rows = list(itertools.islice(with_hard_negatives(training, seed=0), 20))
    rows.append((make_pair("p.a", 'naïve "quotes"\u2028 and a line\nbreak'), ""))
    write_pairs(tmp_path / "pairs.jsonl", rows)
    assert list(read_pairs(tmp_path / "pairs.jsonl")) == rows
