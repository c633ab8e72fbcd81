"""
How much longer does `hotswap train --csv` take than a bare script that reads, preprocesses, trains and exports it?
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.report import Measurement
from tests.benchmarks.train_overhead import run

ROWS, COLUMNS = 100_000, 20
MANY_ROWS, MANY_COLUMNS = 1_000_000, 30
MAX_TIMES = 1.5
MAX_GIBIBYTES = 6.0
MAX_EVALUATE_SECONDS = 60.0
_EPOCHS = "60"


def measure() -> list[Measurement]:
    """Both in turn, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name:
        directory = Path(name)
        path = directory / "table.csv"
        made(ROWS, COLUMNS).to_csv(path, index=False)
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


def measure_large() -> list[Measurement]:
    """The memory and the evaluation of a training on a million rows; two epochs take as much as sixty."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name:
        path = Path(name) / "table.csv"
        made(MANY_ROWS, MANY_COLUMNS).to_csv(path, index=False)
        arguments = ["--csv", str(path), "--target", "target", "--epochs", "2", "--json"]
        seconds, output = run([sys.executable, "-m", "flows.cli", "train", *arguments], Path(name), timeout=1800)
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20)
    size = f"{MANY_ROWS:,} rows and {MANY_COLUMNS} columns"
    evaluated = json.loads(output)["seconds"]["evaluate"]
    return [
        Measurement(f"hotswap train --csv of {size}, two epochs", seconds, "s"),
        Measurement("  memory at most", most, "GiB", MAX_GIBIBYTES),
        Measurement("  evaluation of model and baselines on a fifth of it", evaluated, "s", MAX_EVALUATE_SECONDS),
    ]


def made(rows: int, columns: int) -> pd.DataFrame:
    """Numbers with missing values and heavy tails, words of 5 to 3,000 kinds, and two classes."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({f"column_{each}": _column(random, each, rows) for each in range(columns - 1)})
    odds = 1.2 * frame["column_0"].fillna(0) + 1.5 * np.sin(2 * frame["column_4"]) + 1.5 * (frame["column_1"] == "w1")
    frame["target"] = np.where(random.random(rows) < 1 / (1 + np.exp(0.5 - odds)), "yes", "no")
    return frame


def _column(random: np.random.Generator, number: int, rows: int) -> object:
    if number % 2:
        kinds = (5, 20, 200, 3000)[number // 2 % 4]
        return np.array([f"w{each}" for each in range(kinds)], object)[random.integers(0, kinds, rows)]
    values = random.normal(size=rows).round(4) if number % 4 == 0 else random.lognormal(2, 1, rows).round(2)
    return np.where(random.random(rows) < 0.1, np.nan, values) if number % 6 == 0 else values
