"""
The flags of ``tensorflow_model_server``, read as it reads them.

``--name=value``; booleans also bare; the last one wins; unknown arguments are reported and ignored. Most flags are the
fields of `ServerSettings`, whose docstrings are their help.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from serving.settings import NEVER, PROVEN, ServerSettings

log = logging.getLogger(__name__)


class _Flag(NamedTuple):
    """A flag that is no setting, or another one than its name says."""

    kind: type
    default: str
    meaning: str


_SETTINGS = {field.name for field in dataclasses.fields(ServerSettings)}
_PORTS = {"grpc_port", "rest_port"}
"""settings that have flags of other names"""
_FIRST_FLAGS = {
    "port": _Flag(int, "8500", "The port of gRPC; 0 turns it off."),
    "rest_api_port": _Flag(int, "0", "The port of REST; 0 turns it off."),
}
_LAST_FLAGS = {
    "ephemeral_ports": _Flag(bool, "false", "Let the kernel choose both ports."),
    "ports_file": _Flag(
        str, "", "Where to write ports and process id as JSON once the server answers; - for standard output."
    ),
    "version": _Flag(bool, "false", "Print the version and exit."),
}
_FILES = {
    "model_config_file",
    "batching_parameters_file",
    "monitoring_config_file",
    "ssl_config_file",
    "rest_ssl_certificate_file",
    "rest_ssl_key_file",
    "token_file",
    "admin_token_file",
    "trusted_keys_file",
    "request_log_directory",
    "request_log_key_file",
}
# Flags of tensorflow_model_server that this server accepts without effect: what they control does not exist here, or is
# decided otherwise.
_WITHOUT_EFFECT: Mapping[str, type] = {
    "grpc_channel_arguments": str,
    "rest_api_num_threads": int,
    "num_unload_threads": int,
    "platform_config_file": str,
    "thread_pool_factory_config_file": str,
    "tensorflow_session_config_file": str,
    "tensorflow_session_parallelism": int,
    "enable_profiler": bool,
    "flush_filesystem_caches": bool,
    "remove_unused_fields_from_bundle_metagraph": bool,
    "per_process_gpu_memory_fraction": float,
    "mixed_precision": str,
    "xla_cpu_compilation_enabled": bool,
    "xla_gpu_compilation_enabled": bool,
    "skip_initialize_tpu": bool,
    "prefer_tflite_model": bool,
    "num_tflite_pools": int,
    "num_tflite_interpreters_per_pool": int,
}
_CHOICES = {"merge_requests": {PROVEN: PROVEN, NEVER: NEVER, "true": PROVEN, "false": NEVER}}
"""flags that take one of a few words; ``merge_requests`` was a boolean once"""


class UsageError(Exception):
    """A flag has a value that it cannot have."""


def parse_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """
    The values of the known flags.

    Raises:
        UsageError: A value cannot be read, or help is asked for.
    """
    values: dict[str, Any] = {}
    types = _flag_types()
    unknown = []
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if argument in ("--help", "-h", "-help"):
            raise UsageError("")
        if not argument.startswith("--") or name not in types or (not equals and types[name] is not bool):
            unknown.append(f"unknown argument: {argument}")
            continue
        values[name] = _read(name, types[name], text if equals else "true")
        if name in _WITHOUT_EFFECT:
            log.info("flag without effect here: %s", argument)
    if unknown:
        print(*unknown, usage(), sep="\n", file=sys.stderr)
    return values


def settings_of(values: Mapping[str, Any]) -> ServerSettings:
    """The settings that flags ask for, with the defaults of ``tensorflow_model_server``."""
    fields = {name: value for name, value in values.items() if name in _SETTINGS}
    for name in _FILES:
        fields[name] = Path(fields[name]) if fields.get(name) else None
    if values.get("ephemeral_ports"):
        return ServerSettings(**{**fields, "grpc_port": 0, "rest_port": 0})
    grpc_port, rest_port = values.get("port", 8500), values.get("rest_api_port", 0)
    if rest_port and rest_port == grpc_port:
        log.error("--rest_api_port cannot be same as --port. Skipping REST")
        rest_port = 0
    return ServerSettings(**{**fields, "grpc_port": grpc_port or None, "rest_port": rest_port or None})


def flag_defaults() -> dict[str, str]:
    """The default of every flag that has an effect, as it is written."""
    first, last = ({name: flag.default for name, flag in flags.items()} for flags in (_FIRST_FLAGS, _LAST_FLAGS))
    return {**first, **{name: _shown(value) for name, value in _setting_defaults().items()}, **last}


def flag_meanings() -> dict[str, str]:
    """What every flag that has an effect does, by its name."""
    return {
        **dict(_setting_docstrings()),
        **{name: flag.meaning for name, flag in (_FIRST_FLAGS | _LAST_FLAGS).items()},
    }


def flags_without_effect() -> list[str]:
    """The flags of tensorflow_model_server that are accepted, and do nothing here."""
    return sorted(_WITHOUT_EFFECT)


def usage() -> str:
    """Every flag with its default."""
    lines = ["usage: python -m serving", "Flags:"]
    lines += [f"  --{name}={default}" for name, default in flag_defaults().items()]
    lines += [f"  --{name}  (without effect)" for name in flags_without_effect()]
    return "\n".join(lines)


def _setting_defaults() -> dict[str, Any]:
    """The defaults of the settings whose flags have their names."""
    defaults = ServerSettings()
    return {name: getattr(defaults, name) for name in sorted(_SETTINGS - _PORTS)}


def _setting_docstrings() -> Iterator[tuple[str, str]]:
    """Every field of `ServerSettings` with its docstring."""
    (settings,) = ast.parse(inspect.getsource(ServerSettings)).body
    assert isinstance(settings, ast.ClassDef)
    for field, below in zip(settings.body, settings.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                yield name, " ".join(words.split()).replace("``", "`")


def _flag_types() -> dict[str, type]:
    settings = {name: str if value is None else type(value) for name, value in _setting_defaults().items()}
    others = {name: flag.kind for name, flag in (_FIRST_FLAGS | _LAST_FLAGS).items()}
    return {**settings, **others, **_WITHOUT_EFFECT}


def _read(name: str, kind: type, text: str) -> Any:
    readers: Mapping[type, Callable[[str], Any]] = {
        bool: _read_bool,
        int: _read_int,
        float: float,
        str: str,
    }
    if name in _CHOICES:
        if text.lower() not in _CHOICES[name]:
            words = " or ".join(dict.fromkeys(_CHOICES[name].values()))
            raise UsageError(f'Couldn\'t interpret value "{text}" for flag {name}: it is {words}.')
        return _CHOICES[name][text.lower()]
    try:
        return readers[kind](text)
    except ValueError as exc:
        raise UsageError(f'Couldn\'t interpret value "{text}" for flag {name}.') from exc


def _read_bool(text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _read_int(text: str) -> int:
    if not text.lstrip("-").isdecimal() or not text.isascii():
        raise ValueError(text)
    return int(text)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
