"""A corpus of (query, candidate) pairs from the Python on this machine.

Splits by package, so that a model is tested on packages it never saw, and drops every text that
occurs twice.
"""

import itertools
import json
import random
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

from metaembed.data.mining import Pair, PairKind, heading_pair, sentence_pairs
from metaembed.data.prose import normalised
from metaembed.data.python_docs import Keep, installed_package_entries, standard_library_entries
from metaembed.data.source import Entry
from metaembed.data.split import is_held_out, stable_hash

__all__ = [
    "Pair",
    "PairKind",
    "held_out_pairs",
    "is_held_out",
    "read_pairs",
    "training_pairs",
    "with_hard_negatives",
    "write_pairs",
]

MAX_SENTENCES_PER_ENTRY = 8
NUM_OPENING_WORDS = 25
NUM_SIBLINGS = 12
"""How many neighbours by name a hard negative is drawn from."""


class Seen:
    """Texts already used, so that each query and each candidate occurs once."""

    def __init__(self) -> None:
        self._sources: dict[bytes, str] = {}

    def note(self, pair: Pair) -> None:
        self._sources |= dict.fromkeys(_keys(pair), pair.source)

    def admit(self, pair: Pair) -> bool:
        """Note a pair and return True, unless its query or its candidate was there before.

        A candidate that opens as another entry's does counts as a repetition of it: packages
        document families of objects from one template.
        """
        query, candidate, opening = _keys(pair)
        if query in self._sources or candidate in self._sources:
            return False
        if self._sources.get(opening, pair.source) != pair.source:
            return False
        self.note(pair)
        return True


def _keys(pair: Pair) -> tuple[bytes, bytes, bytes]:
    """Return short keys of the query, the candidate and the candidate's opening words."""
    words = normalised(pair.candidate).split()
    opening = f"{pair.kind} {' '.join(words[:NUM_OPENING_WORDS])}"
    texts = (normalised(pair.query), " ".join(words), opening)
    query, candidate, first = (stable_hash(f"{n} {text}")[:12] for n, text in enumerate(texts))
    return query, candidate, first


def held_out_pairs(*, per_package: int = 150, keep: Keep | None = None) -> Iterator[Pair]:
    """Yield test pairs, at most `per_package` of each kind from a package.

    An entry gives one kind only: its other pair's candidate would be a right answer too. `keep`
    narrows the packages.
    """
    seen = Seen()
    for package in _packages(_on_side(held_out=True, keep=keep), with_private=False):
        fresh = [pair for pair in _one_kind_each(package) if seen.admit(pair)]
        yield from _sampled(fresh, limit=per_package, seed=0)


def training_pairs(
    *, seed: int = 0, per_package: int = 5_000, keep: Keep | None = None
) -> Iterator[Pair]:
    """Yield training pairs, at most `per_package` of each kind from a package.

    Nothing comes from a held-out package, and no text that a held-out package also contains.
    `keep` narrows both, so test what it trained under the same `keep`.
    """
    seen = Seen()
    for package in _packages(_on_side(held_out=True, keep=keep), with_private=False):
        for pair in itertools.chain(_one_kind_each(package), _both_kinds(package)):
            seen.note(pair)
    for package in _packages(_on_side(held_out=False, keep=keep), with_private=True):
        fresh = [pair for pair in _both_kinds(package) if seen.admit(pair)]
        yield from _sampled(fresh, limit=per_package, seed=seed)


def _on_side(*, held_out: bool, keep: Keep | None) -> Keep:
    return lambda package: is_held_out(package) == held_out and (keep is None or keep(package))


def _packages(keep: Keep, *, with_private: bool) -> Iterator[list[Entry]]:
    entries = itertools.chain(
        standard_library_entries(keep=keep, with_private=with_private),
        installed_package_entries(keep=keep, with_private=with_private),
    )
    for _, group in itertools.groupby(entries, key=attrgetter("package")):
        yield list(group)


def _both_kinds(entries: Iterable[Entry]) -> Iterator[Pair]:
    for entry in entries:
        if (pair := heading_pair(entry)) is not None:
            yield pair
        yield from sentence_pairs(entry, limit=MAX_SENTENCES_PER_ENTRY, with_parameters=True)


def _one_kind_each(entries: Iterable[Entry]) -> Iterator[Pair]:
    for entry in entries:
        options = [heading_pair(entry), next(sentence_pairs(entry), None)]
        pairs = [pair for pair in options if pair is not None]
        if pairs:
            # Three times in four the sentence, where there is one: those are rarer.
            yield pairs[-1 if stable_hash(entry.name)[0] % 4 else 0]


def _sampled(pairs: Iterable[Pair], *, limit: int, seed: int) -> list[Pair]:
    chosen: list[Pair] = []
    for kind in ("heading", "sentence"):
        same = [pair for pair in pairs if pair.kind == kind]
        same.sort(key=lambda pair: stable_hash(f"{seed} {pair.source} {pair.query}"))
        chosen += same[:limit]
    return chosen


def with_hard_negatives(pairs: Iterable[Pair], *, seed: int) -> Iterator[tuple[Pair, str]]:
    """Add to each pair the candidate of a sibling: same package, same kind, a near name.

    Siblings that say nearly the same are passed over, since they may answer the query too.
    Pairs of one package must be adjacent; a pair without any sibling is dropped.
    """
    for _, group in itertools.groupby(pairs, key=attrgetter("package")):
        ordered = sorted(group, key=attrgetter("kind", "source", "query"))
        for _, same_kind in itertools.groupby(ordered, key=attrgetter("kind")):
            siblings = list(same_kind)
            words = [frozenset(normalised(pair.candidate).split()) for pair in siblings]
            for place, pair in enumerate(siblings):
                negative = _sibling(place, siblings=siblings, words=words, seed=seed)
                if negative is not None:
                    yield pair, negative.candidate


def _sibling(
    place: int, *, siblings: list[Pair], words: list[frozenset[str]], seed: int
) -> Pair | None:
    """Choose among the nearest names of other entries, by a seed of the pair's own."""
    pair = siblings[place]
    chooser = random.Random(f"{seed} {pair.source} {pair.query}")
    start = max(0, place - NUM_SIBLINGS // 2)
    near = list(range(start, min(len(siblings), start + NUM_SIBLINGS + 1)))
    chooser.shuffle(near)
    for other in near:
        shared = len(words[place] & words[other])
        is_same = siblings[other].source == pair.source
        if not is_same and shared < 0.5 * len(words[place] | words[other]):
            return siblings[other]
    return None


def write_pairs(path: Path, pairs: Iterable[tuple[Pair, str]]) -> None:
    """Write pairs with their hard negatives, one JSON object a line; a negative may be empty."""
    with path.open("w", encoding="utf-8") as lines:
        for pair, negative in pairs:
            lines.write(json.dumps({**pair._asdict(), "negative": negative}, ensure_ascii=False))
            lines.write("\n")


def read_pairs(path: Path) -> Iterator[tuple[Pair, str]]:
    """Yield what `write_pairs` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            negative = row.pop("negative")
            yield Pair(**row), negative
