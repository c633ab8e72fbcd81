"""What the tests of abuse share."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import settings


@pytest.fixture(scope="session")
def fuzzing(soak: bool) -> settings:
    """The same examples each time in the short form, many at random in the long one; 5 seconds for each answer."""
    return settings(max_examples=20_000 if soak else 150, derandomize=not soak, deadline=timedelta(seconds=5))
