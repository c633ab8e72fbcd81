"""The tasks of Prefect: what they do has effects, so nothing of it is ever cached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from flows.orchestration.prefect_records import without_secrets
from flows.registry.mlflow_errors import RegistryError
from serving.protocol.errors import DeadlineExceeded, ServerUnavailable

P = ParamSpec("P")
R = TypeVar("R")


def as_task(body: Callable[P, R], name: str, retried: bool) -> Callable[P, R]:
    """`body` as a Prefect task that carries no secret; repeating one that is `retried` does no harm."""
    times = 2 if retried else 0
    decorate = task(
        name=name, cache_policy=NO_CACHE, retries=times, retry_delay_seconds=1, retry_condition_fn=_is_temporary
    )
    made: Callable[P, R] = decorate(without_secrets(body))
    return made


def _is_temporary(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether the task failed because a server or MLflow was away for a moment."""
    result = state.result(raise_on_failure=False)
    return isinstance(result, (ServerUnavailable, DeadlineExceeded, RegistryError))
