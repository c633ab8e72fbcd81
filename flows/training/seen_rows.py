"""Which held-out rows a version was trained on, as one may be whose data was split otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import Rows

TRAINING_ROWS = Path("assets.extra") / "training_rows.npy"
"""uint64, sorted: the ids of the rows that a version was trained on"""


def rows_seen(saved_model: Path, rows: Rows) -> NDArray[np.bool_] | None:
    """bool [rows]: which of these rows a model was trained on, by the ids kept with it; None where none are kept."""
    try:
        ids = np.load(saved_model / TRAINING_ROWS, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return np.isin(rows.ids, ids)
