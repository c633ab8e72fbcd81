"""The same, whose process ends in the middle, as one does that runs out of memory."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from tests.flows.search.searched_recipe import RECIPE as SEARCHED


def build(examples: Any) -> Any:
    """End."""
    os._exit(9)


RECIPE = replace(SEARCHED, build=build, tunable={})
