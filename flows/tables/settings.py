"""The settings of a table's network, and how `--tune` searches them."""

from __future__ import annotations

from flows.recipes.tuning import Between, OneOf, Space

LEARNING_RATE = 0.002
WIDTH = 96
"""of the hidden layers"""
DROPOUT = 0.2
TUNABLE: Space = {
    "learning_rate": Between(0.0003, 0.02, log=True),
    "width": OneOf(32, 96, 192),
    "dropout": Between(0.0, 0.5),
}
