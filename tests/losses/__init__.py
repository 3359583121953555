"""A process that a test starts imports this first, and needs what the tests prepare."""

import tests.conftest  # noqa: F401
