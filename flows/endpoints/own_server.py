"""A server of our own for one published version, where no other runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from clients.client import Credentials
from flows.endpoints.live_server import LiveServer, connect
from flows.machine.workspaces import temporary_directory
from flows.settings import Endpoint, Settings
from serving.repository.model_config import ModelEntry, render
from serving.repository.store import Repository
from serving.repository.version_policy import Specific
from serving.runtime.native_logs import without_start_up_notes


@contextmanager
def own_server(settings: Settings, repository: Repository, model: str, version: int) -> Iterator[LiveServer]:
    """Serve one published version on ports that the kernel chooses."""
    entry = ModelEntry(model, str(repository.base_path(model)), Specific((version,)))
    with temporary_directory() as directory, ExitStack() as stack:
        config = directory / "models.config"
        config.write_text(render([entry]), "utf-8")
        with without_start_up_notes():
            from serving.server import Server  # with TensorFlow, which takes seconds to import
            from serving.settings import ServerSettings

            own = stack.enter_context(
                Server(ServerSettings(model_config_file=config, max_num_load_retries=0, native_grpc=False))
            )
        endpoint = Endpoint(f"http://127.0.0.1:{own.rest_port}", f"127.0.0.1:{own.grpc_port}")
        with connect(endpoint, settings.server_timeout_seconds, Credentials()) as server:
            yield server
