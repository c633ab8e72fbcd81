"""Hosts of a fleet on one machine: each has a directory, a server that reads it, and a publish agent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients import GrpcClient, RestClient
from flows.settings import Settings
from serving.repository.store import Repository
from tests.conftest import AS_UP, ModelServer
from tests.faults.points import Point, dying_at, environment
from tests.pipelines import ROWS, Pipeline, with_endpoints
from tests.processes import Piped, run_hotswap, running

POLL_SECONDS = 0.2


@dataclass
class Host:
    """One host."""

    directory: Path
    server: Any
    settings: Settings
    repository: str
    agent: Piped | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def start(self, dies_at: Point | None = None) -> None:
        """Start the agent; it is killed when it comes to a point, if there is one."""
        variables = {**os.environ, **environment(self.settings), **self.variables}
        arguments = ("agent", "--repository", self.repository)
        if dies_at is None:
            self.agent = running(variables, *arguments)
        else:
            self.agent = Piped(variables, dying_at, dies_at, run_hotswap, (arguments,))

    def wait_killed(self) -> None:
        """Wait until the agent has come to its point."""
        assert self.agent is not None
        self.agent.communicate()
        assert self.agent.returncode == -signal.SIGKILL

    def restart(self, **variables: str) -> None:
        """End the agent, and start it with these variables in addition."""
        self.stop()
        self.variables = variables
        self.start()

    def staged(self, model: str) -> list[Path]:
        """The files of a version that is being fetched."""
        return [path for path in (self.directory / ".staging" / model).rglob("*") if path.is_file()]

    def stop(self) -> str:
        """End the agent as a service manager does; what it has logged."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGTERM)
        return self.agent.communicate()[1]

    def versions(self, model: str) -> list[int]:
        return Repository(self.directory).versions(model)

    def answered(self, model: str, **how: Any) -> set[int | None]:
        """The versions that answer over both protocols."""
        with RestClient(self.settings.rest_url) as rest, GrpcClient(self.settings.grpc_target) as grpc:
            return {client.predict(model, ROWS, **how).version for client in (rest, grpc)}


@contextmanager
def hosts(pipeline: Pipeline, model_server: ModelServer, directories: Sequence[Path]) -> Iterator[list[Host]]:
    """Hosts with these directories, which follow the repository of `pipeline`; their agents run during the block."""
    pipeline.repository.check_writable()
    repository = pipeline.repository.identity()
    assert repository is not None
    found = [_host(pipeline, model_server, directory, repository) for directory in directories]
    ports = [(host.settings.rest_port, host.settings.grpc_port) for host in found]
    pipeline.settings = with_endpoints(pipeline.settings, *ports).model_copy(update={"fleet": True})
    for host in found:
        host.start()
    try:
        yield found
    finally:
        for host in found:
            host.stop()


def _host(pipeline: Pipeline, model_server: ModelServer, directory: Path, repository: str) -> Host:
    directory.mkdir(exist_ok=True)
    config = directory / "models.config"
    config.write_text("model_config_list {}")
    server = model_server(
        model_config_file=config,
        **AS_UP,
    )
    settings = pipeline.settings.model_copy(
        update={
            "models_repo": directory,
            "rest_port": server.rest_port,
            "grpc_port": server.grpc_port,
            "agent_poll_seconds": POLL_SECONDS,
        }
    )
    return Host(directory, server, settings, repository)
