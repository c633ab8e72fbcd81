"""
How much longer does `hotswap train --csv` take than a bare script that reads, preprocesses, trains and exports it?
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.report import Measurement
from tests.benchmarks.train_overhead import run

ROWS, COLUMNS = 100_000, 20
MAX_TIMES = 1.5
_EPOCHS = "60"


def measure() -> list[Measurement]:
    """Both in turn, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name:
        directory = Path(name)
        path = directory / "table.csv"
        made().to_csv(path, index=False)
        script = str(Path(__file__).with_name("bare_table.py"))
        bare = run([sys.executable, script, str(path), str(directory / "bare"), _EPOCHS], directory)[0]
        command = [sys.executable, "-m", "flows.cli", "train", "--csv", str(path), "--target", "target", "--json"]
        ours = run(command, directory)[0]
    size = f"{ROWS:,} rows and {COLUMNS} columns"
    return [
        Measurement(f"bare script: read {size}, preprocess, train, export", bare, "s"),
        Measurement(f"hotswap train --csv of {size}", ours, "s"),
        Measurement("  times the bare script", ours / bare, "x", MAX_TIMES),
    ]


def made() -> pd.DataFrame:
    """Numbers with missing values and heavy tails, words of 5 to 3,000 kinds, and two classes."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({f"column_{each}": _column(random, each) for each in range(COLUMNS - 1)})
    odds = 1.2 * frame["column_0"].fillna(0) + 1.5 * np.sin(2 * frame["column_4"]) + 1.5 * (frame["column_1"] == "w1")
    frame["target"] = np.where(random.random(ROWS) < 1 / (1 + np.exp(0.5 - odds)), "yes", "no")
    return frame


def _column(random: np.random.Generator, number: int) -> object:
    if number % 2:
        kinds = (5, 20, 200, 3000)[number // 2 % 4]
        return np.array([f"w{each}" for each in range(kinds)], object)[random.integers(0, kinds, ROWS)]
    values = random.normal(size=ROWS).round(4) if number % 4 == 0 else random.lognormal(2, 1, ROWS).round(2)
    return np.where(random.random(ROWS) < 0.1, np.nan, values) if number % 6 == 0 else values
