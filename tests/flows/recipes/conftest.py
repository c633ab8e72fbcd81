"""A home with a server, where recipes go their whole way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.server import Server
from tests.conftest import AS_UP, server_settings
from tests.processes import Piped, without_settings


@dataclass(frozen=True)
class Home:
    """Where the recipes are trained, with a server."""

    environment: dict[str, str]
    server: Server

    def run(self, *commands: tuple[str, ...], directory: Path | None = None) -> list[dict[str, Any]]:
        """What ``hotswap …`` prints of each of these commands, in one process that ends with the first that fails."""
        process = Piped(self.environment, run_in_turn, commands, directory=directory)
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors
        return [json.loads(line) for line in output.splitlines()]


def run_in_turn(commands: tuple[tuple[str, ...], ...]) -> None:
    """``hotswap …`` several times in this process."""
    from flows.cli import run

    for command in commands:
        if code := run([*command, "--json"]):
            raise SystemExit(code)


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, prefect_api: str, furnish: Callable[[Path], None], forked_sandbox: Path
) -> Iterator[Home]:
    directory = tmp_path_factory.mktemp("recipes")
    furnish(directory / "home")
    config = directory / "models" / "models.config"
    config.parent.mkdir()
    config.write_text("model_config_list {}")
    with Server(
        server_settings(
            model_config_file=config,
            **AS_UP,
        )
    ) as server:
        settings = {
            "HOTSWAP_HOME": str(directory / "home"),
            "HOTSWAP_MODELS_REPO": str(directory / "models"),
            "HOTSWAP_REST_PORT": str(server.rest_port),
            "HOTSWAP_GRPC_PORT": str(server.grpc_port),
            "PREFECT_API_URL": prefect_api,
            "HOTSWAP_SANDBOX_SERVER": str(forked_sandbox),
        }
        yield Home({**without_settings(), **settings}, server)
