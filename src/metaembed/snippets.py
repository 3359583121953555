"""The few words of a passage that show why it was found."""

import re

WIDTH = 240
_WORD = re.compile(r"\w+")


def snippet(text: str, query: str, *, width: int = WIDTH) -> str:
    """Cut `text` to about `width` characters around the words it shares with `query`.

    >>> snippet("One. " * 30 + "The whale sings. " + "Two. " * 30, "whale song", width=40)
    '… One. The whale sings. Two. Two. Two. …'
    """
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    wanted = {word for word in _WORD.findall(query.lower()) if len(word) > 2}
    found = [m.start() for m in _WORD.finditer(text) if m[0].lower() in wanted]
    best = _densest(found, width)
    start = max(0, min(best - width // 4, len(text) - width))
    stop = min(len(text), start + width)
    # Move both ends inwards to whole words.
    if start > 0:
        start = text.find(" ", start) + 1 or start
    if stop < len(text):
        stop = max(text.rfind(" ", start, stop), start + width // 2)
    return ("… " if start else "") + text[start:stop].strip() + (" …" if stop < len(text) else "")


def _densest(positions: list[int], width: int) -> int:
    """The first position of the window of `width` that holds most of `positions`."""
    best, most, first = 0, 0, 0
    for last, position in enumerate(positions):
        while position - positions[first] > width // 2:
            first += 1
        if last - first + 1 > most:
            best, most = positions[first], last - first + 1
    return best
