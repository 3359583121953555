"""Looking through a source before time is spent on training with it."""

import os
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from metaembed.data.examples import IMAGE_TOKEN, Example, Picture, Side
from metaembed.data.formats import FORMATS
from metaembed.data.formats.own import looks_like_a_picture
from metaembed.data.sources import Source
from metaembed.errors import ItemError

Fault = Literal["unreadable row", "empty side", "missing picture", "broken picture"]

MAX_NAMED = 20
"""Rows with a fault of one kind that are named; all of them are counted."""
CHUNK = 256
"""Rows that are looked at together."""
SMALL_SIDE = 28
"""Pixels of the smallest patch of a Qwen processor, which refuses what is smaller."""
LENGTHS = (32, 128, 512, 2048, 8192)
"""Upper ends of the classes of text lengths, in characters."""
SIDES = (SMALL_SIDE, 256, 512, 1024, 2048)
"""Upper ends of the classes of picture sizes: the longer side, in pixels."""

_MODEL_TOKEN = re.compile(
    r"<\|(image_pad|video_pad|vision_start|vision_end|im_start|im_end|endoftext)\|>|<image>"
)


class Problem(NamedTuple):
    """One fault: of what kind, in which row, and what about it."""

    kind: Fault
    where: str
    what: str


@dataclass
class Report:
    """What `check_source` found; counts are of rows, or of sides in rows."""

    source: str
    format: str
    rows: int = 0
    checked: int = 0
    modalities: dict[str, dict[str, int]] = field(default_factory=dict)
    """By side, how many are text, picture, text and picture, or empty."""
    negatives: dict[int, int] = field(default_factory=dict)
    """Rows by their number of hard negatives."""
    faults: dict[Fault, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """The first of every kind of fault."""
    orphan_tokens: int = 0
    """Texts with `<|image_1|>` where there is no picture; it is deleted."""
    model_tokens: int = 0
    """Texts that hold special tokens of a model, which its tokenizer takes for such."""
    small_pictures: int = 0
    """Pictures with a side under 28 pixels, which are enlarged."""
    repeated_rows: int = 0
    """Rows whose query and positive both occurred before."""
    repeated_queries: int = 0
    repeated_positives: int = 0
    answered_by_itself: int = 0
    """Rows whose query is the positive."""
    text_lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    picture_sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    first: list[dict[str, Any]] = field(default_factory=list)
    """The first rows as the model will see them."""

    @property
    def is_sound(self) -> bool:
        return not self.faults


class _Look(NamedTuple):
    """What one row turned out to be."""

    example: Example | None
    keys: tuple[int, int] | None
    sizes: list[tuple[str, tuple[int, int]]]
    problems: list[Problem]
    orphans: int


def check_source(
    source: Source,
    *,
    decode: bool = True,
    limit: int | None = None,
    num_first: int = 3,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Report:
    """Read every row and picture, or the first `limit`; open the source with `keep_empty`.

    Without `decode` only the headers of pictures are read: much faster, but it misses files that
    are cut off, and takes copies of a file for different pictures.
    """
    count = len(source) if limit is None else min(limit, len(source))
    report = Report(source.name, source.format, rows=len(source), checked=count)
    tally = _Tally(report)
    for done, look in enumerate(_looks(source, count, decode=decode), start=1):
        tally.add(look)
        if look.example is not None and len(report.first) < num_first:
            report.first.append(_shown(look))
        if done % CHUNK == 0 or done == count:
            progress(done, count)
    tally.finish()
    return report


def _looks(source: Source, count: int, *, decode: bool) -> Iterator[_Look]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, count, CHUNK):
            rows = range(start, min(count, start + CHUNK))
            yield from threads.map(lambda row: _look(source, row, decode=decode), rows)


def _look(source: Source, row: int, *, decode: bool) -> _Look:
    where = source.where(row)
    try:
        example = source.unchecked(row)
    except ItemError as error:
        what = str(error).removeprefix(f"{where}: ")
        return _Look(None, None, [], [Problem("unreadable row", where, what)], 0)
    problems, sizes = [], []
    for name, side in example.sides():
        if side.is_empty:
            problems.append(Problem("empty side", where, f"{name} has neither text nor picture"))
        elif _is_lost_path(side):
            problems.append(Problem("missing picture", where, f"{name}: there is no {side.text!r}"))
        if side.picture is not None:
            found = _size(side.picture, decode=decode)
            if isinstance(found, tuple):
                sizes.append((name, found))
            else:
                problems.append(_problem(side.picture, where, name, found))
    keys = example.keys(by_path=not decode)
    return _Look(example, keys, sizes, problems, _orphans(source, row, example))


def _size(picture: Picture, *, decode: bool) -> tuple[int, int] | ItemError:
    """Width and height, or what is wrong with the picture."""
    try:
        if not decode:
            return picture.size()
        with picture.open() as image:
            return image.size
    except ItemError as error:
        return error


def _problem(picture: Picture, where: str, name: str, error: ItemError) -> Problem:
    if picture.content is None and picture.path is not None and not picture.path.exists():
        return Problem("missing picture", where, f"{name}: there is no {str(picture.path)!r}")
    return Problem("broken picture", where, f"{name}: {error}")


def _is_lost_path(side: Side) -> bool:
    """Tell a text that was meant to be a picture."""
    text = side.text or ""
    is_path = "/" in text or not any(character.isspace() for character in text)
    return side.picture is None and is_path and looks_like_a_picture(text)


def _orphans(source: Source, row: int, example: Example) -> int:
    """How many sides have an image token and no picture, in the row as it is stored."""
    format, raw = FORMATS[source.format], source.raw(row)
    negatives = [column for column in raw if column.startswith("neg")]
    sides = [(format.query, [example.query]), (format.positive, [example.positive])]
    sides.append((tuple(negatives), list(example.negatives)))
    return sum(
        all(side.picture is None for side in found)
        and any(IMAGE_TOKEN in text for column in columns for text in _texts(raw.get(column)))
        for columns, found in sides
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(value.get("text"))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


class _Tally:
    """Counts what the rows are; 16 bytes a row."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._modalities: dict[str, Counter[str]] = defaultdict(Counter)
        self._negatives: Counter[int] = Counter()
        self._faults: Counter[Fault] = Counter()
        self._lengths: dict[str, Counter[str]] = defaultdict(Counter)
        self._sizes: dict[str, Counter[str]] = defaultdict(Counter)
        self._keys = (array("q"), array("q"))

    def add(self, look: _Look) -> None:
        for problem in look.problems:
            self._faults[problem.kind] += 1
            if self._faults[problem.kind] <= MAX_NAMED:
                self._report.problems.append(problem)
        self._report.orphan_tokens += look.orphans
        for name, size in look.sizes:
            self._sizes[_role(name)][_class(max(size), SIDES)] += 1
            self._report.small_pictures += min(size) < SMALL_SIDE
        if look.example is not None and look.keys is not None:
            self._add_example(look.example, look.keys)

    def _add_example(self, example: Example, keys: tuple[int, int]) -> None:
        self._negatives[len(example.negatives)] += 1
        for name, side in example.sides():
            role, prompt = _role(name), side.prompt()
            self._modalities[role][_modality(side)] += 1
            if prompt is not None:
                self._lengths[role][_class(len(prompt), LENGTHS)] += 1
                self._report.model_tokens += bool(_MODEL_TOKEN.search(prompt))
        if example.query.is_empty or example.positive.is_empty:
            return
        self._report.answered_by_itself += keys[0] == keys[1]
        for column, key in zip(self._keys, keys, strict=True):
            column.append(key)

    def finish(self) -> None:
        report = self._report
        report.modalities = {side: dict(counts) for side, counts in self._modalities.items()}
        report.negatives = dict(sorted(self._negatives.items()))
        report.faults = dict(self._faults)
        report.text_lengths = _in_order(self._lengths, LENGTHS)
        report.picture_sizes = _in_order(self._sizes, SIDES)
        queries, positives = (np.array(column, dtype=np.int64) for column in self._keys)
        pairs = np.stack([queries, positives], axis=1)
        report.repeated_queries = len(queries) - len(np.unique(queries))
        report.repeated_positives = len(positives) - len(np.unique(positives))
        report.repeated_rows = len(pairs) - len(np.unique(pairs, axis=0))


def _role(name: str) -> str:
    """
    >>> _role("negative 3")
    'negative'
    """
    return name.split()[0]


def _modality(side: Side) -> str:
    if side.is_empty:
        return "empty"
    has = [side.text is not None, side.picture is not None]
    return " and ".join(name for name, there in zip(("text", "picture"), has, strict=True) if there)


def _class(value: int, ends: tuple[int, ...]) -> str:
    """
    >>> _class(31, LENGTHS), _class(32, LENGTHS), _class(9000, LENGTHS)
    ('0-31', '32-127', '8192-')
    """
    place = sum(value >= end for end in ends)
    return _classes(ends)[place]


def _classes(ends: tuple[int, ...]) -> list[str]:
    starts = (0, *ends)
    stops = [str(end - 1) for end in ends] + [""]
    return [f"{start}-{stop}" for start, stop in zip(starts, stops, strict=True)]


def _in_order(counts: dict[str, Counter[str]], ends: tuple[int, ...]) -> dict[str, dict[str, int]]:
    return {
        side: {name: found[name] for name in _classes(ends) if found[name]}
        for side, found in counts.items()
    }


def _shown(look: _Look) -> dict[str, Any]:
    assert look.example is not None
    sizes = dict(look.sizes)
    shown: dict[str, Any] = {}
    for name, side in look.example.sides():
        size = sizes.get(name)
        shown[name] = {"text": side.prompt()} if side.prompt() is not None else {}
        if side.picture is not None:
            shown[name]["picture"] = "unreadable" if size is None else f"{size[0]}x{size[1]}"
    return shown
