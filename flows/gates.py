"""Is the candidate good enough to be published?"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum

from flows.evaluation import Evaluation


class Verdict(StrEnum):
    """What one check, or all of them together, came to."""

    PASSED = "passed"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the gate's report."""

    check: str
    measured: str
    required: str
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict, and the checks that led to it."""

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        passed = all(check.verdict is Verdict.PASSED for check in self.checks)
        return Verdict.PASSED if passed else Verdict.REJECTED

    @property
    def reason(self) -> str:
        """Why it was rejected; empty when it passed."""
        return "; ".join(check.why for check in self.checks if check.verdict is not Verdict.PASSED)

    @property
    def table(self) -> list[dict[str, str]]:
        return [{**asdict(check), "verdict": str(check.verdict)} for check in self.checks]

    @property
    def markdown(self) -> str:
        head = "| check | measured | required | verdict | why |\n|---|---|---|---|---|\n"
        lines = ("| " + " | ".join(row.values()) + " |\n" for row in self.table)
        return f"# Gate: {self.verdict}\n\n{head}{''.join(lines)}"

    @property
    def json(self) -> str:
        return json.dumps({"verdict": self.verdict, "checks": self.table}, indent=2)


def judge(evaluation: Evaluation, min_accuracy: float) -> GateDecision:
    """Hold the candidate's evaluation against what is required of it."""
    return GateDecision((_accuracy_floor(evaluation.accuracy, min_accuracy), _finite(evaluation)))


def _accuracy_floor(accuracy: float, required: float) -> Check:
    passed = accuracy >= required
    why = "enough held-out rows are recognised" if passed else f"accuracy {accuracy:.4f} is below {required:.4f}"
    return _check("accuracy", f"{accuracy:.4f}", f">= {required:.4f}", passed, why)


def _finite(evaluation: Evaluation) -> Check:
    # argmax answers for NaN too, so a broken model could pass on accuracy alone.
    total = float(abs(evaluation.probabilities.sum(axis=1) - 1).max())
    passed = math.isfinite(total) and total <= 1e-3
    why = "every row of probabilities sums to 1" if passed else "a row of probabilities does not sum to 1"
    return _check("probabilities", f"off by {total:.1e}", "<= 1.0e-03", passed, why)


def _check(name: str, measured: str, required: str, passed: bool, why: str) -> Check:
    return Check(name, measured, required, Verdict.PASSED if passed else Verdict.REJECTED, why)
