"""
What does models.config say?

`models.config` is a ``ModelServerConfig`` in protobuf's text format. The part of the format that this one message needs
is read and written here without TensorFlow, so that the command line can do it in milliseconds.

Source: tensorflow_serving/config/model_server_config.proto
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from serving.errors import InvalidRequest
from serving.text_format import Message, Value, parse_message
from serving.version_policy import All, Latest, Specific, VersionPolicy

_CONFIG_FIELDS = {
    "name",
    "base_path",
    "model_platform",
    "model_type",
    "model_version_policy",
    "version_labels",
    "logging_config",
}
_MODEL_TYPES = {"MODEL_TYPE_UNSPECIFIED": 0, "TENSORFLOW": 1, "OTHER": 2, "0": 0, "1": 1, "2": 2}


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One ``config`` of the list: where a model lives, which of its versions are served, and under which labels."""

    name: str
    base_path: str
    policy: VersionPolicy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = "tensorflow"
    model_type: int = 0
    logging: bool = False


def render(models: Sequence[ModelEntry]) -> str:
    """The text of a whole ``models.config``; `parse` reads it back."""
    return "model_config_list {\n" + "".join(_render_entry(entry) for entry in models) + "}\n"


def parse(text: str) -> list[ModelEntry]:
    """
    The models of a ``models.config``.

    Raises:
        InvalidRequest: The text is not a ``ModelServerConfig`` with a ``model_config_list``.
    """
    try:
        message = parse_message(text)
    except InvalidRequest as exc:
        raise InvalidRequest(f"models.config: {exc}") from exc
    unknown = set(message) - {"model_config_list"}
    if unknown:
        raise InvalidRequest(f"models.config: unknown field {min(unknown)!r}, expected model_config_list")
    lists = [_as_message(value) for value in message.get("model_config_list", [])]
    return [_entry(_as_message(config)) for each in lists for config in _known(each, {"config"}).get("config", [])]


def _render_entry(entry: ModelEntry) -> str:
    lines = [f"    name: {_quote(entry.name)}", f"    base_path: {_quote(entry.base_path)}"]
    if entry.platform:
        lines.append(f"    model_platform: {_quote(entry.platform)}")
    if entry.model_type:
        lines.append(f"    model_type: {entry.model_type}")
    lines.append(f"    model_version_policy {{ {_render_policy(entry.policy)} }}")
    for label, version in sorted(entry.labels.items()):
        lines.append(f"    version_labels {{ key: {_quote(label)} value: {version} }}")
    return "  config {\n" + "\n".join(lines) + "\n  }\n"


def _render_policy(policy: VersionPolicy) -> str:
    if isinstance(policy, All):
        return "all {}"
    if isinstance(policy, Specific):
        return "specific {" + "".join(f" versions: {version}" for version in policy.versions) + " }"
    return f"latest {{ num_versions: {policy.count} }}"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _entry(config: Message) -> ModelEntry:
    _known(
        config,
        {
            "name",
            "base_path",
            "model_platform",
            "model_type",
            "model_version_policy",
            "version_labels",
            "logging_config",
        },
    )
    return ModelEntry(
        name=_text(config, "name"),
        base_path=_text(config, "base_path"),
        policy=_policy(_last_message(config, "model_version_policy")),
        labels=dict(_label(_as_message(label)) for label in config.get("version_labels", [])),
        platform=_text(config, "model_platform"),
        model_type=_model_type(config),
        logging="logging_config" in config,
    )


def _policy(message: Message) -> VersionPolicy:
    _known(message, {"latest", "all", "specific"})
    if "all" in message:
        return All()
    if "specific" in message:
        versions = _last_message(message, "specific").get("versions", [])
        return Specific(tuple(_as_int(version) for version in versions))
    return Latest(_int(_last_message(message, "latest"), "num_versions", 1))


def _label(message: Message) -> tuple[str, int]:
    return _text(_known(message, {"key", "value"}), "key"), _int(message, "value", 0)


def _model_type(message: Message) -> int:
    value = message.get("model_type", ["0"])[-1]
    if not isinstance(value, str) or value not in _MODEL_TYPES:
        raise InvalidRequest(f"models.config: unknown model_type {value!r}")
    return _MODEL_TYPES[value]


def _known(message: Message, names: Collection[str]) -> Message:
    unknown = set(message).difference(names)
    if unknown:
        raise InvalidRequest(f"models.config: unknown field {min(unknown)!r}")
    return message


def _as_message(value: Value) -> Message:
    if not isinstance(value, dict):
        raise InvalidRequest(f"models.config: expected {{ … }}, found {value!r}")
    return value


def _last_message(message: Message, name: str) -> Message:
    return _as_message(message.get(name, [{}])[-1])


def _text(message: Message, name: str) -> str:
    value = message.get(name, [b""])[-1]
    if not isinstance(value, bytes):
        raise InvalidRequest(f"models.config: {name} must be a string")
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"models.config: {name} is not UTF-8") from exc


def _int(message: Message, name: str, default: int) -> int:
    return _as_int(message[name][-1]) if name in message else default


def _as_int(value: Value) -> int:
    if not isinstance(value, str):
        raise InvalidRequest(f"models.config: expected a number, found {value!r}")
    try:
        return int(value, 16 if value.lower().startswith("0x") else 10)
    except ValueError as exc:
        raise InvalidRequest(f"models.config: expected a number, found {value!r}") from exc
