"""
Reads and writes ``models.config``: a ``ModelServerConfig`` in protobuf's text format.

That needs no TensorFlow, so that the command line can do it in milliseconds.

Source: tensorflow_serving/config/model_server_config.proto
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from google.protobuf import text_format

from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import InvalidRequest
from serving.repository.version_policy import All, Latest, Specific, VersionPolicy

_Policy = wire.FileSystemStoragePathSourceConfig.ServableVersionPolicy


@dataclass(frozen=True, slots=True)
class Logging:
    """The ``logging_config`` of a model: which share of its requests is kept, and by what collector."""

    sampling_rate: float = 0.0
    collector: str = ""
    filename_prefix: str = ""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One ``config`` of the list: where a model lives, which of its versions are served, and under which labels."""

    name: str
    base_path: str
    policy: VersionPolicy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = "tensorflow"
    model_type: int = 0
    logging: Logging | None = None


def render(models: Sequence[ModelEntry]) -> str:
    """The text of a whole ``models.config``; `parse` reads it back."""
    return text_format.MessageToString(to_message(models), as_utf8=True)


def parse(text: str) -> list[ModelEntry]:
    """
    The models of a ``models.config``.

    Raises:
        InvalidRequest: The text is not a ``ModelServerConfig`` with a ``model_config_list``.
    """
    return list(_parsed(text))


@lru_cache(maxsize=4)
def _parsed(text: str) -> tuple[ModelEntry, ...]:
    """A look at many models reads the same text for each of them, and that of a thousand models takes 50 ms."""
    try:
        message = text_format.Parse(text, wire.ModelServerConfig())
    except text_format.ParseError as exc:
        raise InvalidRequest(f"models.config: {exc}") from exc
    return tuple(entries_of(message))


def entries_of(message: Any) -> list[ModelEntry]:
    """The models that a ``ModelServerConfig`` lists, be it ours or TensorFlow Serving's."""
    return [_entry(config) for config in message.model_config_list.config]


def to_message(models: Sequence[ModelEntry]) -> wire.ModelServerConfig:
    """A whole ``models.config`` as the message that a reload sends."""
    return wire.ModelServerConfig(model_config_list=wire.ModelConfigList(config=[_config(entry) for entry in models]))


def _config(entry: ModelEntry) -> wire.ModelConfig:
    return wire.ModelConfig(
        name=entry.name,
        base_path=entry.base_path,
        model_type=entry.model_type,  # type: ignore[arg-type]  # numbers are fine, the stub leaves them out
        model_platform=entry.platform,
        model_version_policy=_policy_message(entry.policy),
        version_labels=entry.labels,
        logging_config=_logging_message(entry.logging),
    )


def _policy_message(policy: VersionPolicy) -> _Policy:
    if isinstance(policy, All):
        return _Policy(all=_Policy.All())
    if isinstance(policy, Specific):
        return _Policy(specific=_Policy.Specific(versions=policy.versions))
    return _Policy(latest=_Policy.Latest(num_versions=policy.count))


def _entry(config: Any) -> ModelEntry:
    return ModelEntry(
        name=config.name,
        base_path=config.base_path,
        policy=_policy(config.model_version_policy),
        labels=dict(config.version_labels),
        platform=config.model_platform,
        model_type=config.model_type,
        logging=_logging(config.logging_config) if config.HasField("logging_config") else None,
    )


def _logging_message(logging: Logging | None) -> wire.LoggingConfig | None:
    if logging is None:
        return None
    return wire.LoggingConfig(
        log_collector_config=wire.LogCollectorConfig(type=logging.collector, filename_prefix=logging.filename_prefix),
        sampling_config=wire.SamplingConfig(sampling_rate=logging.sampling_rate),
    )


def _logging(config: Any) -> Logging:
    collector = config.log_collector_config
    return Logging(config.sampling_config.sampling_rate, collector.type, collector.filename_prefix)


def _policy(policy: Any) -> VersionPolicy:
    if policy.HasField("all"):
        return All()
    if policy.HasField("specific"):
        return Specific(tuple(policy.specific.versions))
    return Latest(policy.latest.num_versions) if policy.HasField("latest") else Latest()
