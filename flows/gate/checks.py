"""One line of a report of gate or sandbox, and the reports as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from flows.gate.noninferiority import Verdict


@dataclass(frozen=True, slots=True)
class Check:
    """What was measured, against what is required."""

    check: str
    measured: str
    required: str
    verdict: Verdict
    why: str

    @property
    def row(self) -> dict[str, str]:
        return {**asdict(self), "verdict": str(self.verdict)}


def required_check(name: str, measured: str, required: str, passed: bool, why: str) -> Check:
    """One that passes or rejects."""
    return Check(name, measured, required, Verdict.PASSED if passed else Verdict.REJECTED, why)


def breaking_check(name: str, measured: str, required: str, why: str, allowed: bool) -> Check:
    """One that rejects what breaks clients, unless that is meant."""
    if allowed:
        return Check(name, measured, required, Verdict.PASSED, f"{why}; allowed by --allow-breaking")
    return Check(name, measured, required, Verdict.REJECTED, f"{why}; if that is meant, add --allow-breaking")


def markdown_report(title: str, checks: Sequence[Check]) -> str:
    """A heading, and a table with a line a check."""
    head = "| check | measured | required | verdict | why |\n|---|---|---|---|---|\n"
    lines = ("| " + " | ".join(cell.replace("|", "\\|") for cell in check.row.values()) + " |\n" for check in checks)
    return f"# {title}\n\n{head}{''.join(lines)}"
