"""
What Prefect keeps of a flow: states, artifacts and parameters, none of them with a secret.

Its database has a state with a message for every run, logs, artifacts and parameters, and its page shows them to
everybody who reaches it. So what a flow gives to Prefect passes through here, where secrets are left out.
"""

from __future__ import annotations

import base64
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext
from prefect.runtime import deployment, flow_run

from flows.orchestration import open_runs, run_log
from flows.parameters import documented
from flows.settings import load_settings
from serving.protocol.redaction import redact_error, redact_logs, redacted, redacted_values

P = ParamSpec("P")
R = TypeVar("R")


def without_secrets(step: Callable[P, R]) -> Callable[P, R]:
    """The body of a flow or task whose errors, which Prefect keeps as the messages of states, carry no secret."""

    @functools.wraps(step)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        redact_logs()
        try:
            return step(*arguments, **named)
        except Exception as exc:
            redact_error(exc)
            raise

    return run


def followed(body: Callable[P, R]) -> Callable[P, R]:
    """The body of a flow that is `without_secrets`, whose lines are kept, and known to have gone when it is killed."""

    @functools.wraps(body)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        with run_log.kept(), open_runs.followed(load_settings(), str(flow_run.id)):
            return body(*arguments, **named)

    # Prefect would look for the names in the annotations here. It describes a parameter as the docstring does.
    vars(run)["__signature__"] = inspect.signature(body, eval_str=True)
    return without_secrets(documented(run))


def is_of_deployment() -> bool:
    """Whether the flow run that this is in is one of a deployment, or a part of one."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and context.flow_run.parent_task_run_id is None:
        return context.flow_run.deployment_id is not None  # to find it out, `prefect.runtime` would ask the server
    return deployment.id is not None


def keep_report(kind: str, model: str, markdown: str, rows: Sequence[Any] = (), picture: bytes = b"") -> None:
    """Show the report of gate or sandbox on the page of the flow run, below it a PNG, and its rows as a table."""
    key = artifact_key(kind, model)
    title = f"{kind.capitalize()} of {model}"
    shown = f"\n![{title}](data:image/png;base64,{base64.b64encode(picture).decode()})\n" if picture else ""
    create_markdown_artifact(redacted(markdown) + shown, key=key, description=title)
    if rows:
        keep_table(f"{key}-checks", rows, f"{title}, check by check")


def artifact_key(kind: str, model: str) -> str:
    """The key of what Prefect keeps of this kind of a model."""
    return f"{kind}-" + re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def keep_table(key: str, rows: Sequence[Any], description: str) -> None:
    """Show a table there."""
    create_table_artifact(redacted_values(list(rows)), key=key, description=description)
