"""What a candidate's files must be like before it is run at all."""

from __future__ import annotations

from flows.gate.checks import Check, required_check
from flows.recipes import Thresholds
from flows.training.inspection import Inspection


def safety(inspection: Inspection, thresholds: Thresholds) -> Check:
    allowed = set(thresholds.allowed_ops)
    refused = sorted(inspection.unsafe_ops - allowed)
    found = ", ".join(sorted(inspection.unsafe_ops)) or "none"
    required = f"none but {', '.join(sorted(allowed))}" if allowed else "none"
    why = "only computes" if not inspection.unsafe_ops else "all are allowed by the recipe"
    if refused:
        why = (
            f"runs {', '.join(refused)}, which touch files, other hosts or Python: "
            "leave them out, or name them in the recipe's allowed_ops"
        )
    return required_check("unsafe ops", found, required, not refused, why)


def size(inspection: Inspection, thresholds: Thresholds) -> Check:
    passed = inspection.size <= thresholds.max_bytes
    why = (
        "within the budget"
        if passed
        else f"{inspection.size:,} bytes are more than the budget of {thresholds.max_bytes:,}"
    )
    return required_check("size", f"{inspection.size:,} bytes", f"<= {thresholds.max_bytes:,} bytes", passed, why)
