"""
Checks the configurations of models, by TensorFlow Serving's rules and with its error texts.

Source: tensorflow_serving/model_servers/server_core.cc
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.lifecycle.source import Watched
from serving.protocol.errors import FailedPrecondition, InvalidRequest
from serving.repository.model_config import ModelEntry, entries_of

_MODEL_TYPES = {1: "tensorflow", 2: "other"}


def listed_entries(config: Any) -> list[ModelEntry]:
    """The models that a ``ModelServerConfig`` lists; one without a list is refused."""
    if config.WhichOneof("config") != "model_config_list":
        raise FailedPrecondition(
            "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
        )
    return entries_of(config)


def watched(entry: ModelEntry) -> Watched:
    """What to look for on disk."""
    return Watched(Path(entry.base_path.removeprefix("file://")), entry.policy)


def check_entries(entries: Sequence[ModelEntry], current: Mapping[str, ModelEntry]) -> None:
    """Refuse a name that is listed twice, a relative path, and another platform for a model that is served already."""
    names = Counter(entry.name for entry in entries)
    for entry in entries:
        if names[entry.name] > 1:
            raise InvalidRequest(f"Illegal to list model {entry.name} multiple times in config list")
    for entry in entries:
        if not watched(entry).base_path.is_absolute():
            raise InvalidRequest(
                f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
            )
    for entry in entries:
        if entry.name in current and _platform(entry) != _platform(current[entry.name]):
            raise InvalidRequest(
                f"Illegal to change a model's platform. For model {entry.name} platform was "
                f"{_platform(current[entry.name])} and new platform requested is {_platform(entry)}"
            )


def check_platforms(entries: Sequence[ModelEntry]) -> None:
    """Refuse every platform but TensorFlow."""
    for entry in entries:
        if _platform(entry) != "tensorflow":
            raise InvalidRequest(f"Model {entry.name} requests unsupported platform {_platform(entry)}")


def check_logging(entries: Sequence[ModelEntry], has_request_log: bool) -> None:
    """Refuse request logging where there is no log, and a share of requests that is none."""
    for logging in filter(None, (entry.logging for entry in entries)):
        if not has_request_log:
            raise InvalidRequest("No request-logger-creator provided.")
        if not 0 <= logging.sampling_rate <= 1:
            raise InvalidRequest(f"Expected sampling_rate to be in [0, 1]; got {logging.sampling_rate:g}")


def _platform(entry: ModelEntry) -> str:
    if bool(entry.platform) == bool(entry.model_type):
        which = "both" if entry.platform else "neither"
        joined = "and" if entry.platform else "nor"
        raise InvalidRequest(
            f"Illegal setting {which} ModelServerConfig::model_type (deprecated) {joined} "
            f"ModelServerConfig::model_platform, model name is {entry.name}"
        )
    return entry.platform or _MODEL_TYPES[entry.model_type]
