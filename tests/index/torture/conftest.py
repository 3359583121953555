import pytest

from tests.index.torture import children
from tests.index.torture.trials import TALLY


@pytest.fixture
def tally(request):
    """Count outcomes; the totals of a long run are printed at its end."""
    return TALLY[request.node.originalname]


@pytest.fixture
def strace():
    """Skip a test where there is none, or where it may not attach to processes."""
    if not children.has_strace():
        pytest.skip("it needs strace")


def pytest_terminal_summary(terminalreporter, config):
    if config.option.markexpr == "torture":
        for test, outcomes in TALLY.items():
            counts = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
            terminalreporter.write_line(f"{test}: {counts}")
