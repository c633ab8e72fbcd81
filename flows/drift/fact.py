"""The last report about each model, as a file that the metrics are computed from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from serving.repository.files import write_atomically

if TYPE_CHECKING:
    from flows.drift.report import DriftReport


def keep_fact(home: Path, report: DriftReport, run_id: str) -> None:
    """Keep a report as the last one about its model."""
    kept = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "run_id": run_id, **report.data}
    name = f"{quote(report.model, safe='')}.json"
    write_atomically(_directory(home) / name, json.dumps(kept, indent=1))


def kept_facts(home: Path) -> Iterator[Mapping[str, Any]]:
    """The last report about each model; one that cannot be read is passed over."""
    for path in sorted(_directory(home).glob("*.json")):
        try:
            yield json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue


def _directory(home: Path) -> Path:
    return home.absolute() / "drift"
