"""How are versions shown to a person?"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from flows.promotion import VersionRow


def version_table(rows: Sequence[VersionRow]) -> Table:
    """One line per version, newest first."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("model", "version", "state", "labels", "aliases", "accuracy", "published", "run"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("version", "accuracy") else "left")
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
