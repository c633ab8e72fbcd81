"""The same, whose candidates have a function converted by AutoGraph, and fail with the number of the files it made."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from tests.flows.search.searched_recipe import RECIPE as SEARCHED


def build(examples: Any) -> Any:
    """Have the function traced, and fail."""
    tf.function(lambda row: row * 2.0)(tf.constant(1.0))
    made = list(Path(tempfile.gettempdir()).glob("__autograph*.py"))
    raise ValueError(f"{len(made)} made")


RECIPE = replace(SEARCHED, build=build, tunable={})
