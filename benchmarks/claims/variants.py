"""What is compared: each question with the variants that answer it."""

from typing import NamedTuple

PAPER = ("1x1", "2x4", "4x8", "8x16", "16x64")


class Variant(NamedTuple):
    """What is trained."""

    groups: tuple[str, ...] = PAPER
    dim: int = 128
    score: str = "sum"
    temperature: float = 0.03
    meta_tokens: str = "table"
    """Start of the meta tokens: `table` (around the mean of the vocabulary, with its spread),
    `normal` (N(0, 1), as in the paper's code) or `orthogonal` (spread apart)."""
    candidate_reads: str = "both"
    """Sets of meta tokens behind a candidate: `both`, or its `own`."""
    evaluated: tuple[str, ...] = PAPER


SINGLE = {"groups": ("1x1",), "evaluated": ("1x1",)}

VARIANTS: dict[str, Variant] = {
    "mmr": Variant(),
    "without-mmr": Variant(groups=("16x64",)),
    "single-128": Variant(**SINGLE),
    "single-2048": Variant(**SINGLE, dim=16 * 128),
    "single-8192": Variant(**SINGLE, dim=64 * 128),
    "tokens-4x8": Variant(groups=PAPER[:3], evaluated=PAPER[:3]),
    "tokens-8x16": Variant(groups=PAPER[:4], evaluated=PAPER[:4]),
    "groups-linear": Variant(groups=("4x16", "8x32", "12x48", "16x64")),
    "groups-powers": Variant(groups=("1x4", "2x8", "4x16", "8x32", "16x64")),
    "groups-two": Variant(groups=("1x1", "16x64")),
    "mean-score": Variant(score="mean"),
    "own-tokens": Variant(candidate_reads="own"),
    "start-normal": Variant(meta_tokens="normal"),
    "start-orthogonal": Variant(meta_tokens="orthogonal"),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "budgets": ("mmr",),
    "mmr": ("mmr", "without-mmr"),
    "single": ("mmr", "single-128", "single-2048", "single-8192"),
    "groups": ("mmr", "tokens-4x8", "tokens-8x16", "groups-linear", "groups-powers", "groups-two"),
    "score": ("mmr", "mean-score", "own-tokens"),
    "start": ("mmr", "start-normal", "start-orthogonal"),
}
"""Sections of docs/claims.md."""
