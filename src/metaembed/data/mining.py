"""Queries with the candidate that answers them, made from documented Python objects.

Two kinds: a heading (the summary line of a docstring, the title of a section) with the text
below it, and a sentence with the passage that it was taken out of. Nobody labels anything; no
candidate repeats its query word for word.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from metaembed.data.prose import clean, normalised, paragraphs, sentences
from metaembed.data.source import Entry
from metaembed.data.split import stable_hash

MAX_CANDIDATE_WORDS = 220
SENTENCE_WINDOW_WORDS = 150
MIN_CANDIDATE_WORDS = 20

PairKind = Literal["heading", "sentence"]


class Pair(NamedTuple):
    """A query and its candidate; `source` names the entry that both come from."""

    query: str
    candidate: str
    package: str
    source: str
    kind: PairKind


_BOILERPLATE = re.compile(
    r"(?i)\b(deprecated|alias (for|of)|copyright|licen[sc]ed?|warranty|inherited from|"
    r"not implemented|subclasses should|see (the )?(docstring|documentation|doc) (of|for)|"
    r"for more information|refer to|internal (use|method)|todo|fixme|same as)\b"
)
_PLACEHOLDER = re.compile(
    r"%\(\w+\)|%s|\{\w*\}|\{\{|<<|>>|=>|\\|[{}~|^$]|\.\.\.|::| -- |\w \([^)]*\):|Defaults to|: -"
)
_DANGLING = re.compile(
    r"(?i)(this|these|it|its|they|that|those|such|here|see|note|otherwise|however|also|thus|"
    r"therefore|hence|then|so|but|and|or|in this|in that|in the (example|following|above|latter)|"
    r"the (following|above|latter|former|same|other|second|third|next)|for (example|instance)|"
    r"if (true|false|none)|default|both|as (above|such|mentioned)|similarly|likewise|"
    r"furthermore|moreover|again|another|instead|where|"
    r"examples?|for an example|one of these|in addition|returns?|raises?)\b"
)
_PLAIN_WORD = re.compile(r"[\"'(]?[A-Za-z][a-z]*(['’-][a-z]+)*[\"').,;:]*")
_GENERIC_HEADING = re.compile(
    r"(?i)(installation|install(ing)?|licen[cs]e.*|contribut.*|changelog|documentation|usage|"
    r"links|support|credits|acknowledg.*|citation|citing.*|references?|table of contents|authors?|"
    r"requirements|overview|introduction|notes?|examples?|development|see also|code of conduct|"
    r"security.*|badges?|what'?s new|release notes.*)"
)


def heading_pair(entry: Entry) -> Pair | None:
    """Pair the summary (of a docstring) or the heading (of a section) with the rest of the text."""
    blocks = list(paragraphs(entry.doc))
    if not blocks:
        return None
    if entry.kind == "text":
        query, rest = _section_query(entry), [block.text for block in blocks]
    else:
        first = sentences(blocks[0].text) if blocks[0].is_prose else []
        query = first[0].rstrip(".: ") if first else ""
        rest = [" ".join(first[1:]), *(block.text for block in blocks[1:])]
    candidate = " ".join(" ".join(rest).split()[:MAX_CANDIDATE_WORDS])
    if not 4 <= _num_words(query) <= 30 or not _is_candidate(candidate, query=query):
        return None
    if _BOILERPLATE.search(query) or _PLACEHOLDER.search(query) or not _is_wordy(query):
        return None
    return Pair(query, candidate, entry.package, entry.name, "heading")


def sentence_pairs(
    entry: Entry, *, limit: int = 1, with_parameters: bool = False
) -> Iterator[Pair]:
    """Pair up to `limit` informative sentences with the passage around each, less the sentence.

    Sentences come from prose and, `with_parameters`, from descriptions of parameters as well.
    The choice is by hash, so it never changes. The summary line is left to the heading pair.
    """
    units = [
        (text, block.is_prose or with_parameters)
        for block in paragraphs(entry.doc)
        for text in sentences(block.text)
    ]
    if sum(is_choosable for _, is_choosable in units) < 4:
        return
    places = [
        place
        for place, (text, is_choosable) in enumerate(units)
        if is_choosable and _is_informative(text) and (place > 0 or entry.kind == "text")
    ]
    places.sort(key=lambda place: stable_hash(f"{entry.name} {units[place][0]}"))
    texts = [text for text, _ in units]
    for place in places[: min(limit, len(units) // 4)]:
        query, candidate = texts[place].rstrip("."), _window(texts, place)
        if _is_candidate(candidate, query=query):
            yield Pair(query, candidate, entry.package, entry.name, "sentence")


def _section_query(entry: Entry) -> str:
    heading = clean(entry.name.partition(": ")[2]).strip(" .:#*-")
    if _GENERIC_HEADING.fullmatch(heading):
        return ""
    if 2 <= _num_words(heading) < 4:
        return f"{heading} ({entry.package.replace('_', ' ')})"
    return heading


def _is_informative(sentence: str) -> bool:
    return (
        7 <= _num_words(sentence) <= 40
        and sentence.endswith(".")
        and sentence[0].isupper()
        and _is_wordy(sentence)
        and not _DANGLING.match(sentence)
        and not _BOILERPLATE.search(sentence)
        and not _PLACEHOLDER.search(sentence)
    )


def _is_wordy(text: str) -> bool:
    words = text.split()
    plain = sum(_PLAIN_WORD.fullmatch(word) is not None for word in words)
    return plain >= 0.75 * len(words)


def _num_words(text: str) -> int:
    return len(text.split())


def _is_candidate(text: str, *, query: str) -> bool:
    is_long_enough = _num_words(text) >= MIN_CANDIDATE_WORDS
    return is_long_enough and normalised(query) not in normalised(text)


def _window(texts: list[str], place: int) -> str:
    """Join about `SENTENCE_WINDOW_WORDS` around a place, a third before it, without it."""
    before = " ".join(texts[:place]).split()
    after = " ".join(texts[place + 1 :]).split()
    num_before = max(SENTENCE_WINDOW_WORDS // 3, SENTENCE_WINDOW_WORDS - len(after))
    before = before[-num_before:]
    return " ".join(before + after[: SENTENCE_WINDOW_WORDS - len(before)])
