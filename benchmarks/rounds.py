"""Timing of several methods side by side: round after round, each method once a round.

A shared machine is slow for seconds at a time. Methods that take turns meet the same moments, and
two times of one round make a ratio that the moment does not change.
"""

import random
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

SHORT_SECONDS = 0.02
"""A method that takes less is called until this long is over, and the median call counts."""
SETTLE_SECONDS = 0.005
"""Pause before a measurement, in which the last method's threads stop spinning."""
METHOD_SECONDS = 20.0
"""A slow method sits out rounds so as to take about this long in all ..."""
FEWEST_RUNS = 5
"""... but is measured at least so often."""


def spread(values: list[float]) -> dict[str, float | int]:
    """Median, 10th and 90th percentile, and how many values there were."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"median": float(median), "p10": float(low), "p90": float(high), "runs": len(values)}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def settled_seconds(call: Callable[[], object]) -> float:
    """One measurement of a call that has run before; the first call of a short one is left out."""
    time.sleep(SETTLE_SECONDS)
    first = seconds(call)
    if first >= SHORT_SECONDS:
        return first
    times = [seconds(call)]
    while sum(times) < SHORT_SECONDS:
        times.append(seconds(call))
    return float(np.median(times))


def rounds_of(estimate: float, rounds: int) -> set[int]:
    """The rounds that a method of about this many seconds a call joins, spread evenly."""
    fewest = min(FEWEST_RUNS, rounds)
    runs = min(rounds, max(fewest, int(METHOD_SECONDS / max(estimate, 1e-9))))
    return set(np.linspace(0, rounds - 1, runs).round().astype(int).tolist())


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    estimates: Mapping[str, float],
    always: Collection[str],
    rounds: int,
    before_round: Callable[[], Any],
) -> tuple[list[dict[str, float]], list[Any]]:
    """For each round the seconds of the methods that ran in it, and what `before_round` returned.

    `always` are in every round, however slow. The order within a round is shuffled, so that no
    method always follows the same one.
    """
    joined = {name: rounds_of(estimates[name], rounds) for name in calls}
    joined |= {name: set(range(rounds)) for name in always}
    times, moments = [], []
    for number in range(rounds):
        names = [name for name in calls if number in joined[name]]
        random.Random(number).shuffle(names)
        moments.append(before_round())
        times.append({name: settled_seconds(calls[name]) for name in names})
    return times, moments


def column(times: list[dict[str, float]], name: str) -> list[float]:
    return [some[name] for some in times if name in some]


def ratios(times: list[dict[str, float]], name: str, to: str) -> list[float]:
    """One method's time over another's, for every round that both were in."""
    return [some[name] / some[to] for some in times if name in some and to in some]
