"""Reads what the settings of a server name, and says in TensorFlow Serving's words why it cannot start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tensorflow_serving.config import model_server_config_pb2

from serving.protocol.errors import HotswapError, ServingError
from serving.protocol.text_protos import read_text_proto
from serving.repository.model_config import ModelEntry, entries_of
from serving.settings import ServerSettings

T = TypeVar("T")


class StartupError(HotswapError):
    """The server could not start."""


class PortInUse(StartupError):
    """A port that the server should listen on is taken."""


def read_file(read: Callable[[Path], T], path: Path | None) -> T | None:
    """What a file holds; None where there is no file."""
    try:
        return None if path is None else read(path)
    except OSError as exc:
        raise StartupError(f"NOT_FOUND: {path}; {exc.strerror}") from exc
    except ServingError as exc:
        raise StartupError(f"{exc.code.name}: {exc}") from exc


def configured_models(settings: ServerSettings) -> tuple[Sequence[ModelEntry], bool]:
    """The models that the settings ask for, and whether there is a list of them at all."""
    if settings.use_alts_credentials:
        raise StartupError("UNIMPLEMENTED: ALTS exists on Google Cloud only; use --ssl_config_file for TLS.")
    config = read_file(read_config, settings.model_config_file)
    if config is None and not settings.model_base_path:
        raise StartupError(
            "INVALID_ARGUMENT: Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    if config is not None and config.HasField("custom_model_config"):
        raise StartupError("UNIMPLEMENTED: ModelServer does not yet support custom model config.")
    if settings.batching_parameters_file is not None and not settings.enable_batching:
        raise StartupError(
            "INVALID_ARGUMENT: server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true."
        )
    if config is None:
        return [ModelEntry(settings.model_name, settings.model_base_path)], True
    return entries_of(config), config.HasField("model_config_list")


def read_config(path: Path) -> Any:
    """The ``ModelServerConfig`` in a file."""
    return read_text_proto(path, model_server_config_pb2.ModelServerConfig())
