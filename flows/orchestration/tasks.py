"""The tasks of Prefect: what they do has effects, so nothing of it is ever cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from flows.orchestration.prefect_records import without_secrets
from flows.registry.mlflow_errors import RegistryError
from serving.protocol.errors import DeadlineExceeded, ServerUnavailable

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")


def as_task(body: Callable[P, R], name: str, retried: bool) -> Callable[P, R]:
    """`body` as a Prefect task that carries no secret; repeating one that is `retried` does no harm."""
    times = 2 if retried else 0
    decorate = task(
        name=name, cache_policy=NO_CACHE, retries=times, retry_delay_seconds=1, retry_condition_fn=_is_temporary
    )
    made: Callable[P, R] = decorate(without_secrets(body))
    return made


def in_parallel(body: Callable[[A], R], names: Sequence[str], arguments: Sequence[A]) -> list[R | Exception]:
    """Run `body` for each argument, as task runs of these names beside each other; what each gives, or its error."""
    futures = [
        task(name=body.__name__.strip("_"), task_run_name=name, cache_policy=NO_CACHE)(without_secrets(body)).submit(
            each
        )
        for name, each in zip(names, arguments, strict=True)
    ]
    return [future.result(raise_on_failure=False) for future in futures]


def _is_temporary(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether the task failed because a server or MLflow was away for a moment."""
    result = state.result(raise_on_failure=False)
    return isinstance(result, (ServerUnavailable, DeadlineExceeded, RegistryError))
