"""How often a torture is repeated, and what came of it."""

import os
from collections import Counter, defaultdict

import pytest

TALLY = defaultdict(Counter)
"""By test: how often each outcome was seen."""


def trials(few, many):
    """Run a test with a `few` numbered trials, and under the marker with `many`."""
    many = int(os.environ.get("METAEMBED_TRIALS", many))
    long = pytest.param(range(few, few + many), marks=pytest.mark.torture, id=f"{many}-trials")
    return pytest.mark.parametrize("numbers", [pytest.param(range(few), id="few-trials"), long])
