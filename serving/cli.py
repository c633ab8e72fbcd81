"""
The flags of ``tensorflow_model_server``, read as it reads them.

``--name=value``; booleans also bare; the last one wins; unknown arguments are reported and ignored; a bad value ends
the program with exit code 255.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib.metadata
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.runtime.native_logs import without_start_up_notes
from serving.settings import NEVER, PROVEN, ServerSettings

log = logging.getLogger(__name__)

EXIT_USAGE = 255
EXIT_NOT_STARTED = 255
EXIT_PORT_IN_USE = 1

_FIELDS = {field.name: field for field in dataclasses.fields(ServerSettings)}
_RENAMED = {"port": "grpc_port", "rest_api_port": "rest_port"}
_HIDDEN = {"grpc_port", "rest_port"}
_FILES = {
    "model_config_file",
    "batching_parameters_file",
    "monitoring_config_file",
    "ssl_config_file",
    "rest_ssl_certificate_file",
    "rest_ssl_key_file",
    "token_file",
}

# Flags of tensorflow_model_server that this server takes without effect: what they steer does not exist here, or is
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
# By default the millions of lists in a large request would be looked at again and again while they are made.
_GARBAGE_THRESHOLDS = (50_000, 20, 100)
# By default a thread that loads a version lets the one that answers requests wait for 5 ms, again and again.
_SWITCH_SECONDS = 1e-4
_NO_GRPC = (
    "Failed to start server. Error: INVALID_ARGUMENT: "
    "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
)
_NO_SETTINGS = {"version": bool, "ephemeral_ports": bool, "ports_file": str}


class UsageError(Exception):
    """A flag has a value that it cannot have."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        values = parse_flags(arguments)
        if values.get("version"):
            print(f"TensorFlow ModelServer: {importlib.metadata.version('hotswap')} (hotswap)")
            print(f"TensorFlow Library: {importlib.metadata.version('tensorflow')}")
            return 0
        settings = settings_of(values)
    except UsageError as exc:
        print(exc, file=sys.stderr)
        print(usage(), file=sys.stderr)
        return EXIT_USAGE
    if settings.grpc_port is None and not settings.grpc_socket_path:
        print(_NO_GRPC, file=sys.stderr)
        return EXIT_NOT_STARTED
    return serve(settings, ports_file=values.get("ports_file") or None)


def serve(settings: ServerSettings, ports_file: str | None = None) -> int:
    """Run one server in this process, which does nothing else, until it is told to stop."""
    _allow_many_files()
    from serving.runtime import tensorflow_import

    tensorflow_import.set_environment()
    with without_start_up_notes():
        tensorflow_import.prepare()
    from serving.server import PortInUse, Server, StartupError

    server = Server(settings)
    signalled = False

    def stop(number: int, frame: object) -> None:
        nonlocal signalled
        signalled = True
        server.request_stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        server.start()
    except PortInUse as exc:
        print(exc, file=sys.stderr)
        return EXIT_PORT_IN_USE
    except StartupError as exc:
        if signalled:
            return 0
        print(f"Failed to start server. Error: {exc}", file=sys.stderr)
        return EXIT_NOT_STARTED
    if ports_file:
        _write_ports(ports_file, settings, server)
    gc.collect()
    gc.freeze()  # what is loaded now stays; later collections need not look at it
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_SECONDS)
    server.wait()
    return 0


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
    fields = {_RENAMED.get(name, name): value for name, value in values.items()}
    fields = {name: value for name, value in fields.items() if name in _FIELDS}
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
    defaults = ServerSettings()
    own = {name: _shown(getattr(defaults, name)) for name in sorted(set(_FIELDS) - _HIDDEN)}
    return {
        "port": "8500",
        "rest_api_port": "0",
        **own,
        "ephemeral_ports": "false",
        "ports_file": "",
        "version": "false",
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


def _allow_many_files() -> None:
    """Open as many connections as the system lets this user."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a system may name a limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _flag_types() -> dict[str, type]:
    types: dict[str, type] = {"port": int, "rest_api_port": int, **_WITHOUT_EFFECT, **_NO_SETTINGS}
    defaults = ServerSettings()
    for name in set(_FIELDS) - _HIDDEN:
        default = getattr(defaults, name)
        types[name] = str if default is None else type(default)
    return types


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


def _write_ports(target: str, settings: ServerSettings, server: Any) -> None:
    grpc_port = server.grpc_port if settings.grpc_port is not None else None
    rest_port = server.rest_port if settings.rest_port is not None else None
    ports = {
        "grpc_port": grpc_port,
        "grpc": f"{settings.host}:{grpc_port}" if grpc_port else f"unix:{settings.grpc_socket_path}",
        "rest_port": rest_port,
        "rest": rest_port
        and f"{'https' if settings.rest_ssl_certificate_file else 'http'}://{settings.host}:{rest_port}",
        "pid": os.getpid(),
    }
    if target == "-":
        print(json.dumps(ports), flush=True)
        return
    path = Path(target)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(ports))
    partial.replace(path)
