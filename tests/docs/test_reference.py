"""The generated pages are what the code says now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.reference import GENERATED


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name)
def test_generated_pages_are_up_to_date(page: Path) -> None:
    """`make reference` would change nothing."""
    assert page.read_text("utf-8") == GENERATED[page](), "run `make reference`"
