"""Flags are read as tensorflow_model_server reads them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from serving.cli import EXIT_NOT_STARTED, EXIT_USAGE, main
from serving.flags import UsageError, parse_flags, settings_of, usage
from serving.settings import ServerSettings


def settings(*arguments: str) -> ServerSettings:
    """The settings for a command line."""
    return settings_of(parse_flags(arguments))


def test_defaults_are_those_of_tensorflow_serving() -> None:
    """gRPC is on 8500, REST is off."""
    assert settings() == ServerSettings(grpc_port=8500, rest_port=None)


def test_flags() -> None:
    """Numbers, texts, paths and booleans in all their forms; the last one wins."""
    read = settings(
        "--port=9000",
        "--rest_api_port=9001",
        "--model_name=a",
        "--model_name=b",
        "--model_config_file=/models.config",
        "--enable_batching",
        "--enable_model_warmup=false",
        "--rest_api_enable_cors_support=1",
        "--file_system_poll_wait_seconds=-1",
    )
    assert read == ServerSettings(
        grpc_port=9000,
        rest_port=9001,
        model_name="b",
        model_config_file=Path("/models.config"),
        enable_batching=True,
        enable_model_warmup=False,
        rest_api_enable_cors_support=True,
        file_system_poll_wait_seconds=-1,
    )


def test_ephemeral_ports() -> None:
    """The kernel can choose both ports."""
    read = settings("--ephemeral_ports", "--port=9000")
    assert (read.grpc_port, read.rest_port) == (0, 0)


def test_one_port_for_both_turns_rest_off() -> None:
    """REST is skipped when it is given the port of gRPC."""
    assert settings("--port=9000", "--rest_api_port=9000").rest_port is None


@pytest.mark.parametrize("argument", ["--no_such_flag=1", "--port", "8500", "--model_name"])
def test_unknown_arguments_are_reported_and_ignored(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An argument that is no flag is reported together with all that are, and does not stop the server."""
    assert settings(argument) == settings()
    assert capsys.readouterr().err == f"unknown argument: {argument}\n{usage()}\n"


def test_flags_without_effect_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A flag of TensorFlow Serving that does nothing here is accepted, with a line in the log."""
    with caplog.at_level(logging.INFO):
        assert settings("--enable_profiler=false") == settings()
    assert "--enable_profiler=false" in caplog.text


@pytest.mark.parametrize(
    "argument",
    ["--port=x", "--port=", "--enable_batching=maybe", "--file_system_poll_wait_seconds=0.5", "--help"],
)
def test_bad_values_end_the_program(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that cannot be read, or a call for help, prints the usage and exits with 255."""
    with pytest.raises(UsageError):
        settings(argument)
    assert main([argument]) == EXIT_USAGE
    assert usage() in capsys.readouterr().err


def test_without_grpc_nothing_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported in TensorFlow Serving's words."""
    assert main(["--port=0", "--model_base_path=/models"]) == EXIT_NOT_STARTED
    assert capsys.readouterr().err.splitlines()[-1] == (
        "Failed to start server. Error: INVALID_ARGUMENT: "
        "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."
    )


@pytest.mark.parametrize("argument", ["--version", "--version=true"])
def test_version(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The versions of server and library are printed, and nothing is started."""
    assert main([argument]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["TensorFlow ModelServer", "TensorFlow Library"]
