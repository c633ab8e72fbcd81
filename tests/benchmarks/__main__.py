"""
``make bench``: every number that the documentation names.

``python -m tests.benchmarks PART…`` measures some parts only, and leaves docs/benchmark.md as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from tests.benchmarks import (
    discovery,
    first_impressions,
    fleet_scale,
    gate_errors,
    memory,
    records,
    request_log,
    serving_speed,
    table_training,
    tables,
    train_overhead,
    weekly_retraining,
)
from tests.benchmarks.report import Measurement, show, write_markdown
from tests.benchmarks.servers import PROJECT

PARTS: Mapping[str, Callable[[], list[Measurement]]] = {
    "training": train_overhead.measure,
    "table_training": table_training.measure,
    "large_table": table_training.measure_large,
    "tables": tables.measure,
    "gates": gate_errors.measure,
    "weekly_retraining": weekly_retraining.measure,
    "first_impressions": first_impressions.measure,
    "serving": serving_speed.measure,
    "request_log": request_log.measure,
    "memory": memory.measure,
    "discovery": discovery.measure,
    "records": records.measure,
    "fleet_scale": fleet_scale.measure,
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    measured = {}
    for part in chosen:
        measured[part] = PARTS[part]()
        show(part, measured[part])
    if set(chosen) == set(PARTS):
        write_markdown(measured, PROJECT / "docs" / "benchmark.md")
