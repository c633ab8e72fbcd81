"""
The tags by which hotswap's records in MLflow are found.

MLflow's own begin with ``mlflow.``; all others get the prefix ``hotswap.``, and none carries a secret.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from serving.protocol.redaction import redacted

NAMESPACE = "hotswap"
FLOW_RUN = "prefect_flow_run_id"
"""the tag of a run that names its Prefect flow run"""


def prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    return {key if key.startswith("mlflow.") else f"{NAMESPACE}.{key}": redacted(value) for key, value in tags.items()}


def git_tags() -> dict[str, str]:
    """The commit of the code and whether it was changed since; empty outside a git clone."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, f"{NAMESPACE}.git_dirty": json.dumps(bool(changed))}
