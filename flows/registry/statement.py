"""
What the hosts of a fleet must have of a model: a statement in a tag of the registered model.

Every change of what is published or labelled replaces the statement as a whole, so that a host never sees half a
change. Hosts do what it says and nothing else: a model without a statement, or one that cannot be read, stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from flows.registry.mlflow_errors import RegistryError
from flows.registry.tags import NAMESPACE
from serving.repository.names import validate_model_name

STATEMENT = f"{NAMESPACE}.fleet"
"""the tag of a registered model with its statement"""
STAMP = f"{NAMESPACE}.stamp"
"""the tag of a version with what publish has kept with it"""


@dataclass(frozen=True, slots=True)
class Statement:
    """What every host must have of one model."""

    repository: str
    """identity of the repository that it is published in"""
    versions: Mapping[int, str]
    """the digest of every published version; empty for a model that was removed"""
    labels: Mapping[str, int]

    def encode(self) -> str:
        """One text for equal statements."""
        versions = {str(version): self.versions[version] for version in sorted(self.versions)}
        record = {"repository": self.repository, "versions": versions, "labels": dict(sorted(self.labels.items()))}
        return json.dumps(record, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str, model: str) -> Self:
        """
        What `encode` made; `model` becomes a directory, so it must be a name that can be one.

        Raises:
            RegistryError: It is something else.
            InvalidModelName: No model of ours is called so.
        """
        validate_model_name(model)
        try:
            record: dict[str, Any] = json.loads(text)
            versions = {int(version): str(digest) for version, digest in record["versions"].items()}
            labels = {str(label): int(version) for label, version in record["labels"].items()}
            return cls(str(record["repository"]), versions, labels)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise RegistryError(
                f"The tag {STATEMENT} of {model!r} in MLflow cannot be read: `hotswap reconcile {model}` writes it anew"
            ) from exc
