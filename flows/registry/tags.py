"""
The tags by which hotswap's records in MLflow are found.

MLflow's own begin with ``mlflow.``; all others get the prefix ``hotswap.``, and none carries a secret.
"""

from __future__ import annotations

import getpass
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from serving.protocol.redaction import redacted

NAMESPACE = "hotswap"
FLOW_RUN = "prefect_flow_run_id"
"""the tag of a run that names its Prefect flow run"""
LOST_RUN = "lost_run"
"""the tag of a version, and of the run in place of its own, that names the run that MLflow has lost"""
PARENT_RUN = "mlflow.parentRunId"
"""the tag of a run that is a part of another one"""


def prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    return {key if key.startswith("mlflow.") else f"{NAMESPACE}.{key}": redacted(value) for key, value in tags.items()}


def source_tags(source: Path | None) -> dict[str, str]:
    """
    Where a run comes from, as MLflow's page shows it: who started it, and the file with its commit.

    Args:
        source: The file that the model is trained by; a file that git does not know has no commit.
    """
    tags = {"mlflow.user": getpass.getuser(), "mlflow.source.type": "LOCAL"}
    if source is None:
        return tags
    return {**tags, "mlflow.source.name": str(source), **_commit_tags(source)}


def _commit_tags(source: Path) -> dict[str, str]:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", source.name)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, "git_dirty": json.dumps(bool(changed))}
