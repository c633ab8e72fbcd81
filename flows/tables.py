"""How are versions and checks shown to a person?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from flows.gates import Check
    from flows.journal import Entry
    from flows.status import VersionRow


def version_table(rows: Sequence[VersionRow]) -> Table:
    """One line per version, newest first."""
    table = _table("model", "version", "state", "labels", "aliases", "accuracy", "published", "run")
    for row in rows:
        table.add_row(
            row.model,
            str(row.version),
            row.state,
            ", ".join(row.labels),
            ", ".join(row.aliases),
            "" if row.accuracy is None else f"{row.accuracy:.4f}",
            (row.published_at or "")[:19].replace("T", " "),
            row.run_id or "",
        )
    return table


def history_table(entries: Sequence[Entry]) -> Table:
    """One line per entry of the journal, newest first, in local time."""
    table = _table("time", "action", "version", "previous", "label", "who", "why")
    for entry in entries:
        facts = [str(entry.facts.get(key, "")) for key in ("version", "previous", "label")]
        when = datetime.fromisoformat(entry.time).astimezone()
        table.add_row(f"{when:%Y-%m-%d %H:%M:%S}", entry.action, *facts, entry.who, str(entry.facts.get("why", "")))
    return table


def gate_table(checks: Sequence[Check]) -> Table:
    """One line per check of the gate; the reasons are wrapped, so that nothing is cut off."""
    table = _table("check", "measured", "required", "verdict")
    table.add_column("why")
    for check in checks:
        table.add_row(check.check, check.measured, check.required, str(check.verdict), check.why)
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(
            heading, no_wrap=True, justify="right" if heading in ("version", "previous", "accuracy") else "left"
        )
    return table
