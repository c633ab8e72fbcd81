"""What do the options mean that several commands take?"""

from __future__ import annotations

from typing import Annotated

import typer


def _stated(reason: str | None) -> str | None:
    if reason is not None and not reason.strip():
        raise typer.BadParameter("the reason is empty: write why, or leave the option out")
    return reason


Wide = Annotated[bool, typer.Option("--wide", help="Whole ids and reasons, each row in one line.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the table of checks also when all passed.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
Model = Annotated[str, typer.Argument(help="The model's name.")]
MinAccuracy = Annotated[
    float | None, typer.Option(help="The share of held-out rows that must be right; else the recipe decides.")
]
AllowBreaking = Annotated[
    bool, typer.Option("--allow-breaking", help="Pass although clients of the live version find changed signatures.")
]
Bake = Annotated[float, typer.Option(help="Seconds to watch the new version, and undo it when it is worse.")]
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", callback=_stated, help="Why; the journal keeps it, `history` shows it.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
