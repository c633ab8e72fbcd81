"""
What does models.config say?

`models.config` is a ``ModelServerConfig`` in protobuf's text format. The part of the format that this one message needs
is read and written here without TensorFlow, so that the command line can do it in milliseconds.

Source: tensorflow_serving/config/model_server_config.proto
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from serving.errors import InvalidRequest
from serving.version_policy import All, Latest, Specific, VersionPolicy

_TOKEN = re.compile(r"""[ \t\r\n]+|\#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[A-Za-z0-9_.+-]+|[:{}<>\[\],;]""")
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_SIMPLE_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
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
    message = _Parser(text).message(end="")
    unknown = set(message) - {"model_config_list"}
    if unknown:
        raise InvalidRequest(f"models.config: unknown field {min(unknown)!r}, expected model_config_list")
    lists = [_as_message(value) for value in message.get("model_config_list", [])]
    return [_entry(_as_message(config)) for each in lists for config in _known(each, {"config"}).get("config", [])]


_Value = str | bytes | dict[str, list["_Value"]]
_Message = dict[str, list[_Value]]


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


def _entry(config: _Message) -> ModelEntry:
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


def _policy(message: _Message) -> VersionPolicy:
    _known(message, {"latest", "all", "specific"})
    if "all" in message:
        return All()
    if "specific" in message:
        versions = _last_message(message, "specific").get("versions", [])
        return Specific(tuple(_as_int(version) for version in versions))
    return Latest(_int(_last_message(message, "latest"), "num_versions", 1))


def _label(message: _Message) -> tuple[str, int]:
    return _text(_known(message, {"key", "value"}), "key"), _int(message, "value", 0)


def _model_type(message: _Message) -> int:
    value = message.get("model_type", ["0"])[-1]
    if not isinstance(value, str) or value not in _MODEL_TYPES:
        raise InvalidRequest(f"models.config: unknown model_type {value!r}")
    return _MODEL_TYPES[value]


def _known(message: _Message, names: Collection[str]) -> _Message:
    unknown = set(message).difference(names)
    if unknown:
        raise InvalidRequest(f"models.config: unknown field {min(unknown)!r}")
    return message


def _as_message(value: _Value) -> _Message:
    if not isinstance(value, dict):
        raise InvalidRequest(f"models.config: expected {{ … }}, found {value!r}")
    return value


def _last_message(message: _Message, name: str) -> _Message:
    return _as_message(message.get(name, [{}])[-1])


def _text(message: _Message, name: str) -> str:
    value = message.get(name, [b""])[-1]
    if not isinstance(value, bytes):
        raise InvalidRequest(f"models.config: {name} must be a string")
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"models.config: {name} is not UTF-8") from exc


def _int(message: _Message, name: str, default: int) -> int:
    return _as_int(message[name][-1]) if name in message else default


def _as_int(value: _Value) -> int:
    if not isinstance(value, str):
        raise InvalidRequest(f"models.config: expected a number, found {value!r}")
    try:
        return int(value, 16 if value.lower().startswith("0x") else 10)
    except ValueError as exc:
        raise InvalidRequest(f"models.config: expected a number, found {value!r}") from exc


class _Parser:
    """Reads protobuf's text format into nested dictionaries of lists; strings are bytes, other scalars text."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    def message(self, end: str) -> _Message:
        fields: _Message = {}
        while (token := self._take()) != end:
            if not re.fullmatch(r"[A-Za-z_]\w*", token, re.ASCII):
                raise InvalidRequest(f"models.config: expected a field name, found {token!r}")
            fields.setdefault(token, []).extend(self._values())
            if self._peek() in (",", ";"):
                self._take()
        return fields

    def _values(self) -> list[_Value]:
        colon = self._peek() == ":" and bool(self._take())
        if self._peek() != "[":
            return [self._value(colon)]
        self._take()
        values: list[_Value] = []
        while self._peek() != "]":
            values.append(self._value(colon))
            if self._peek() != "]" and self._take() != ",":
                raise InvalidRequest("models.config: expected , or ] in a list")
        self._take()
        return values

    def _value(self, colon: bool) -> _Value:
        token = self._take()
        if token in ("{", "<"):
            return self.message(end="}" if token == "{" else ">")
        if not colon or token in ("", "}", ">", "]", ":", ",", ";"):
            raise InvalidRequest(f"models.config: expected a value, found {token!r}")
        if token[0] not in "\"'":
            return token
        text = _unquote(token)
        while self._peek()[:1] in ('"', "'") and self._peek():
            text += _unquote(self._take())
        return text

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            line = text.count("\n", 0, position) + 1
            raise InvalidRequest(f"models.config: unexpected character {text[position]!r} on line {line}")
        position = match.end()
        if match.group()[0] not in " \t\r\n#":
            yield match.group()


def _unquote(token: str) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, simple = match.groups()
        if octal is not None:
            return bytes([int(octal, 8) & 0xFF])
        if hexadecimal is not None:
            return bytes([int(hexadecimal, 16)])
        return _SIMPLE_ESCAPES.get(simple, simple)

    return _ESCAPE.sub(replace, token[1:-1].encode("utf-8", "surrogateescape"))
