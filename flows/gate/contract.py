"""What clients rely on: the signatures of the version that is live, and the order of its classes."""

from __future__ import annotations

from collections.abc import Mapping

from flows.gate.checks import Check, breaking_check
from flows.gate.noninferiority import Verdict
from flows.training.champion import Champion
from flows.training.inspection import Inspection, Signature


def contract(inspection: Inspection, champion: Champion, allow_breaking: bool) -> Check:
    required = "what clients use is unchanged"
    if champion.inspection is None:
        verdict = Verdict.PASSED if allow_breaking else Verdict.INCONCLUSIVE
        why = f"the signatures of version {champion.version} cannot be read"
        return Check("contract", "unknown", required, verdict, why)
    breaking, added = _differences(champion.inspection, inspection)
    if breaking:
        why = f"breaks clients of version {champion.version}: {'; '.join(breaking)}"
        return breaking_check("contract", f"{len(breaking)} breaking", required, why, allow_breaking)
    why = f"clients notice nothing, added: {', '.join(added)}" if added else "the same signatures"
    return Check("contract", f"{len(added)} added" if added else "the same", required, Verdict.PASSED, why)


def _differences(before: Inspection, after: Inspection) -> tuple[list[str], list[str]]:
    """What breaks clients, and what is new to them."""
    breaking, added = [], []
    for name, old in before.signatures.items():
        new = after.signatures.get(name)
        if new is None:
            breaking.append(f"signature {name!r} is gone")
            continue
        if new.method != old.method:
            breaking.append(f"signature {name!r} is for {new.method} instead of {old.method}")
        changes, additions = _tensor_differences(name, old, new)
        breaking += changes
        added += additions
    added += [f"signature {name!r}" for name in after.signatures if name not in before.signatures]
    if before.class_names and after.class_names[: len(before.class_names)] != before.class_names:
        breaking.append(f"classes are {list(after.class_names)} instead of {list(before.class_names)}")
    return breaking, added


def _tensor_differences(signature: str, before: Signature, after: Signature) -> tuple[list[str], list[str]]:
    breaking, added = [], []
    both: tuple[tuple[str, Mapping[str, str], Mapping[str, str]], ...] = (
        ("input", before.inputs, after.inputs),
        ("output", before.outputs, after.outputs),
    )
    for kind, old, new in both:
        for name in old.keys() | new.keys():
            tensor = f"{kind} {name!r} of {signature!r}"
            if name not in new:
                breaking.append(f"{tensor} is gone")
            elif name in old and old[name] != new[name]:
                breaking.append(f"{tensor} is {new[name]} instead of {old[name]}")
            elif name not in old and kind == "input":
                breaking.append(f"{tensor} is asked for in addition")
            elif name not in old:
                added.append(tensor)
    return sorted(breaking), sorted(added)
