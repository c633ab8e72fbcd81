"""The same, whose candidates wait for their end; each leaves a file that is called like its process."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.flows.search.searched_recipe import RECIPE as SEARCHED


def build(examples: Any) -> Any:
    """Wait."""
    Path(os.environ["WAITING_CANDIDATES"], str(os.getpid())).touch()
    while True:
        signal.pause()


RECIPE = replace(SEARCHED, build=build, tunable={})
