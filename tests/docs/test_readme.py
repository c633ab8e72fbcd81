"""What the README says is so."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from flows.cli import app
from flows.recipes import Thresholds
from flows.settings import Settings
from serving.settings import ServerSettings

PROJECT = Path(__file__).parents[2]
# What tensorflow_model_server 2.20 has too, by its own name or as --port and --rest_api_port.
TENSORFLOW_SERVING_FLAGS = {
    *("grpc_port", "rest_port", "grpc_socket_path", "ssl_config_file", "use_alts_credentials", "model_name"),
    *("model_base_path", "model_config_file", "model_config_file_poll_wait_seconds", "num_load_threads"),
    *("allow_version_labels_for_unavailable_models", "file_system_poll_wait_seconds", "max_num_load_retries"),
    *("load_retry_interval_micros", "saved_model_tags", "enable_model_warmup", "num_request_iterations_for_warmup"),
    *("rest_api_timeout_in_ms", "rest_api_enable_cors_support", "enable_batching", "batching_parameters_file"),
    *("monitoring_config_file", "enable_grpc_healthcheck_service", "enable_signature_method_name_check"),
    *("enable_serialization_as_tensor_content", "grpc_max_threads", "tensorflow_intra_op_parallelism"),
    *("tensorflow_inter_op_parallelism", "enable_per_model_batching_parameters"),
}
OWN_FLAGS = {field.name for field in dataclasses.fields(ServerSettings)} - TENSORFLOW_SERVING_FLAGS
README = (PROJECT / "README.md").read_text("utf-8")
MAKEFILE = (PROJECT / "Makefile").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def server(tiny_model: Any, model_server: Any, tmp_path: Path) -> Any:
    """A server with a model named iris whose version 1 carries the label stable."""
    base_path = tmp_path / "iris"
    tiny_model(base_path, 1)
    config = tmp_path / "models.config"
    config.write_text(
        f"model_config_list {{ config {{ name: 'iris' base_path: '{base_path}' model_platform: 'tensorflow' "
        "version_labels { key: 'stable' value: 1 } } }"
    )
    return model_server(model_config_file=config, allow_version_labels_for_unavailable_models=True)


@pytest.mark.parametrize(
    "command", [command.callback.__name__ for command in app.registered_commands if command.callback]
)
def test_every_command_is_documented(command: str) -> None:
    """The table of commands has a row for each."""
    assert re.search(rf"^\|.*`hotswap {command}[ `]", README, re.MULTILINE)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    """The table of settings has name, default and meaning of each."""
    field = Settings.model_fields[name]
    assert f"| `HOTSWAP_{name.upper()}` | `{field.default}` | {field.description} |" in README


def test_every_threshold_is_documented_with_its_default() -> None:
    """The table of thresholds has a row for each, in the words of its docstring."""
    source = inspect.getsource(Thresholds)
    for field in dataclasses.fields(Thresholds):
        told = re.search(rf'^    {field.name}: .*\n    """(.*)"""', source, re.MULTILINE)
        assert told is not None
        assert f"| `{field.name}` | `{field.default}` | {told[1].replace('``', '`')} |" in README


@pytest.mark.parametrize("name", sorted(OWN_FLAGS))
def test_every_flag_of_our_own_is_documented_with_its_default(name: str) -> None:
    """The table of flags has name and default of each."""
    default = getattr(ServerSettings(), name)
    shown = str(default).lower() if isinstance(default, bool) else default
    assert f"| `--{name}` | {'' if default is None else f'`{shown}`'} | " in README


def test_every_target_of_make_has_a_line_of_help() -> None:
    """``make`` alone lists every target with what it does."""
    listed = subprocess.run(["make"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert targets is not None
    for target in targets[1].split():
        assert re.search(rf"^  make {target} +\S", listed, re.MULTILINE), target


@pytest.mark.parametrize("target", re.findall(r"^\$ make (\w+)", README, re.MULTILINE))
def test_the_commands_that_the_readme_starts_with_exist(target: str) -> None:
    """The two commands are targets of the Makefile."""
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_every_link_leads_somewhere(path: str) -> None:
    """Files and directories that are linked are there."""
    assert (PROJECT / path).exists()


def test_what_happens_when_is_a_test_in_every_row() -> None:
    """The last cell of each row names a test that there is."""
    section = re.search(r"^## What happens when…\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = section[1].split("|---|---|---|\n")[1].strip().splitlines()
    named = [re.search(r"\| `(test_\w+)` \|$", row) for row in rows]
    there = {
        name
        for path in PROJECT.glob("tests/**/test_*.py")
        for name in re.findall(r"^def (\w+)", path.read_text(), re.M)
    }
    assert all(named)
    assert {name[1] for name in named if name} <= there


@pytest.mark.parametrize("program", blocks("python"))
def test_the_python_examples_run(program: str, server: Any) -> None:
    """Each example, put to a server on other ports, prints the outputs."""
    program = program.replace(":8501", f":{server.rest_port}").replace(":8500", f":{server.grpc_port}")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'output': array([[" in done.stdout


def test_the_curl_examples_work(server: Any) -> None:
    """What curl is told to send gets predictions back, by default, by number and by label."""
    commands = re.findall(r"^\$ (curl .*)$", README, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        _, option, body, address = shlex.split(command)
        assert option == "-d"
        answer = requests.post(address.replace(":8501", f":{server.rest_port}"), data=body, timeout=10)
        assert list(json.loads(answer.text)) == ["predictions"]
