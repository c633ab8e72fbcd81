"""Tables of columns of every kind, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROWS = 400


def customers(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Customers who leave when they are young, unhappy, or on the basic plan; of each kind a column."""
    random = np.random.default_rng(seed)
    age = random.integers(18, 80, rows).astype(float)
    plan = random.choice(["basic", "plus", "family"], rows)
    joined = pd.Timestamp("2023-01-01") + pd.to_timedelta(random.integers(0, 700, rows), "D")
    mood = random.choice(["very happy with all of it", "not happy about the price", "no opinion to speak of"], rows)
    number = [f"{word}, said on call {each}" for word, each in zip(mood, random.integers(0, 99, rows), strict=True)]
    spend = random.lognormal(3, 1, rows)
    odds = (50 - age) / 10 + 2.0 * (plan == "basic") + 1.5 * (mood == "not happy about the price") - 2
    churned = random.random(rows) < 1 / (1 + np.exp(-odds))
    frame = pd.DataFrame(
        {
            "customer_id": [f"c-{each:06d}" for each in random.permutation(rows)],
            "age": age,
            "plan": plan,
            "joined": joined.strftime("%Y-%m-%d"),
            "is active": random.choice(["yes", "no"], rows),
            "note": number,
            "spend": spend,
            "country": "NZ",
            "churned": np.where(churned, "yes", "no"),
        }
    )
    frame.loc[::11, "plan"] = None
    frame.loc[::7, "spend"] = np.nan
    return frame


def written(frame: pd.DataFrame, path: Path, **options: Any) -> Path:
    """The frame as a file."""
    frame.to_csv(path, index=False, **options)
    return path
