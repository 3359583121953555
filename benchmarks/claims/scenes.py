"""Generated pictures of several objects, what can be said of them, and what is nearly the same.

A scene is a 3x3 grid with four objects, each of a size, a colour and a shape. A query knows three
of them: in words with one relation, as a picture without the fourth, or as a picture of one and
words for the other two. Two objects that are seen together in training are never together in a test
scene, so that a test is about compositions that are new.
"""

import hashlib
import itertools
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 200, 30),
    "purple": (150, 60, 180),
    "white": (245, 245, 245),
}
SIZES = {"small": 4, "large": 7}
"""Half the side in pixels."""
RELATIONS = ("left-of", "above")
WORDS = (*SIZES, *COLOURS, *SHAPES, *RELATIONS, "and", "also")
SIDE, CELL, NUM_OBJECTS = 3, 16, 4
KINDS = ("text", "picture", "both")
"""Of queries."""
TEST_SHARE = 0.4
"""Of the pairs of objects."""


class Thing(NamedTuple):
    size: str
    colour: str
    shape: str

    def words(self) -> str:
        return " ".join(self)


Scene = dict[int, Thing]
"""Objects by the number of their cell."""

THINGS = [Thing(*one) for one in itertools.product(SIZES, COLOURS, SHAPES)]


class Query(NamedTuple):
    text: str | None
    picture: Scene | None
    known: tuple[int, ...]
    """The cells of the objects that it tells of."""


def is_test_pair(first: Thing, second: Thing) -> bool:
    text = " / ".join(sorted((first.words(), second.words())))
    return hashlib.blake2b(text.encode(), digest_size=4).digest()[0] < 256 * TEST_SHARE


def new_scene(rng: np.random.Generator, *, test: bool) -> Scene:
    """Four objects of which every two may be together on that side of the split."""
    while True:
        chosen: list[Thing] = []
        for number in rng.permutation(len(THINGS)).tolist():
            thing = THINGS[number]
            if all(is_test_pair(thing, other) == test for other in chosen):
                chosen.append(thing)
            if len(chosen) == NUM_OBJECTS:
                cells = rng.permutation(SIDE * SIDE)[:NUM_OBJECTS].tolist()
                return dict(zip(cells, chosen, strict=True))


def new_query(
    rng: np.random.Generator, scene: Scene, kind: str, *, known: tuple[int, ...] | None = None
) -> Query:
    if known is None:
        known = tuple(rng.permutation(list(scene)).tolist()[: NUM_OBJECTS - 1])
    if kind == "picture":
        return Query(None, {cell: scene[cell] for cell in known}, known)
    if kind == "text":
        return Query(_told(scene, known), None, known)
    return Query("also " + _told(scene, known[1:]), {known[0]: scene[known[0]]}, known)


def near_duplicate(rng: np.random.Generator, scene: Scene, known: tuple[int, ...]) -> Scene:
    """The scene with one thing changed that a query knows: a word of an object, or two places."""
    changed = dict(scene)
    first, second = rng.permutation(known).tolist()[:2]
    if rng.random() < 1 / 3:
        changed[first], changed[second] = changed[second], changed[first]
        return changed
    part = int(rng.integers(3))
    values = (tuple(SIZES), tuple(COLOURS), SHAPES)[part]
    others = [value for value in values if value != scene[first][part]]
    old = list(scene[first])
    old[part] = others[int(rng.integers(len(others)))]
    changed[first] = Thing(*old)
    return changed


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """A picture of 48 by 48 pixels with noise; objects stand up to a pixel off the middle."""
    picture = Image.new("RGB", (SIDE * CELL, SIDE * CELL), (25, 25, 30))
    pen = ImageDraw.Draw(picture)
    for cell, thing in scene.items():
        middle = np.array([cell % SIDE, cell // SIDE]) * CELL + CELL // 2 + rng.integers(-1, 2, 2)
        _draw_thing(pen, thing, *middle.tolist())
    noise = rng.normal(0, 6, (SIDE * CELL, SIDE * CELL, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, x: int, y: int) -> None:
    half, colour = SIZES[thing.size], COLOURS[thing.colour]
    box = (x - half, y - half, x + half, y + half)
    match thing.shape:
        case "circle":
            pen.ellipse(box, fill=colour)
        case "ring":
            pen.ellipse(box, outline=colour, width=2)
        case "square":
            pen.rectangle(box, fill=colour)
        case "triangle":
            pen.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], fill=colour)
        case "diamond":
            pen.polygon([(x, y - half), (x - half, y), (x, y + half), (x + half, y)], fill=colour)
        case "cross":
            pen.line([(x - half, y), (x + half, y)], fill=colour, width=3)
            pen.line([(x, y - half), (x, y + half)], fill=colour, width=3)


def _told(scene: Scene, cells: tuple[int, ...]) -> str:
    """The objects in words; the first two with their relation, if there is one."""
    first, second, *rest = cells
    said = _relation(first, second)
    if said is None and (said := _relation(second, first)) is not None:
        first, second = second, first
    words = [scene[first].words(), said or "and", scene[second].words()]
    for cell in rest:
        words += ["and", scene[cell].words()]
    return " ".join(words)


def _relation(first: int, second: int) -> str | None:
    if first // SIDE < second // SIDE:
        return "above"
    if first // SIDE == second // SIDE and first % SIDE < second % SIDE:
        return "left-of"
    return None
