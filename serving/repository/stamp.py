"""
What publish keeps with a version, in a file beside the model.

It travels with the directory, so whoever has the files knows where they come from without asking MLflow. A version that
was copied in by hand has none; one that an earlier release published may lack some of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from serving.repository import answers
from serving.repository.answers import ANSWER_TOLERANCE, OtherAnswer, Tensors, largest_difference

STAMP_FILE = Path("assets.extra") / "hotswap.json"
"""the only file of a version that its digest leaves out"""


@dataclass(frozen=True, slots=True, eq=False)
class GoldenRows:
    """A few rows and the answers to them that were judged, to check any server of the version against."""

    inputs: Tensors
    """by input of ``serving_default``, each of the same number of rows"""
    outputs: Tensors
    """by output"""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()), ()))

    @classmethod
    def decode(cls, record: Mapping[str, Any]) -> Self:
        """What `encode` made, and what releases kept that knew one input and one output of floats only."""
        return cls(answers.decode(record["inputs"], "input"), answers.decode(record["outputs"], "output"))

    def encode(self) -> dict[str, Any]:
        return {"inputs": answers.encode(self.inputs), "outputs": answers.encode(self.outputs)}

    def agree_with(self, given: Tensors) -> bool:
        """Whether an answer is the one that was judged, within `ANSWER_TOLERANCE`."""
        try:
            return largest_difference(self.outputs, given) <= ANSWER_TOLERANCE
        except OtherAnswer:
            return False


@dataclass(frozen=True, slots=True)
class Stamp:
    """Where a version comes from; what is not known is None or empty."""

    version: int | None = None
    digest: str | None = None
    """SHA-256 of the published files"""
    run_id: str | None = None
    """the MLflow run that made it"""
    dataset_digest: str | None = None
    """SHA-256 of the rows that it was trained and judged on"""
    features: tuple[str, ...] = ()
    """names of the values of a row"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """on the held-out rows"""
    unevaluated: str | None = None
    """why it was not judged by held-out rows, where it was not"""
    published_at: str | None = None
    """ISO 8601, UTC"""
    golden: GoldenRows | None = None
    signature: str | None = None
    """of name, number and digest: see serving/repository/signatures.py; None where there is no key"""

    @classmethod
    def read(cls, saved_model: Path) -> Self | None:
        """The stamp in a version's directory; None without one, and for one that cannot be decoded."""
        try:
            return cls.decode(json.loads((saved_model / STAMP_FILE).read_text("utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, saved_model: Path) -> None:
        path = saved_model / STAMP_FILE
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self.encode(), indent=2) + "\n", "utf-8")

    @classmethod
    def decode(cls, record: Mapping[str, Any]) -> Self:
        """What a stamp of any release says: what it lacks stays unknown, what it has beside is left out."""
        known = {each.name: record[each.name] for each in fields(cls) if record.get(each.name) is not None}
        decoders: dict[str, Callable[[Any], Any]] = {
            "version": int,
            "features": tuple,
            "metrics": dict,
            "golden": GoldenRows.decode,
        }
        return cls(**{name: decoders.get(name, str)(value) for name, value in known.items()})

    def encode(self) -> dict[str, Any]:
        record = {each.name: getattr(self, each.name) for each in fields(self)}
        record |= {"features": list(self.features), "golden": self.golden and self.golden.encode()}
        return {name: value for name, value in record.items() if value not in (None, [], {})}
