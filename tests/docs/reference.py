"""
``make reference``: writes docs/reference.md from the code, and the index of the decisions from their titles.

`test_reference.py` compares the pages with what is generated, so that they cannot fall behind.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, cast

from flows import cli
from flows.commands.application import app
from flows.fleet.metrics import AgentMetrics
from flows.monitoring.exposition import Exposition
from flows.recipes import Recipe, Thresholds
from flows.settings import Settings
from serving.flags import flag_defaults, flag_meanings, flags_without_effect
from serving.inference.metric_names import METRICS
from serving.inference.monitoring import DEFAULT_PATH
from serving.inference.process_metrics import ProcessMetrics

DOCS = Path(__file__).parents[2] / "docs"
DECISIONS = DOCS / "decisions"
COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
TENSORFLOW_SERVING_FLAGS = {
    *("port", "rest_api_port", "grpc_socket_path", "ssl_config_file", "use_alts_credentials", "model_name", "version"),
    *("model_base_path", "model_config_file", "model_config_file_poll_wait_seconds", "num_load_threads"),
    *("allow_version_labels_for_unavailable_models", "file_system_poll_wait_seconds", "max_num_load_retries"),
    *("load_retry_interval_micros", "saved_model_tags", "enable_model_warmup", "num_request_iterations_for_warmup"),
    *("rest_api_timeout_in_ms", "rest_api_enable_cors_support", "enable_batching", "batching_parameters_file"),
    *("monitoring_config_file", "enable_grpc_healthcheck_service", "enable_signature_method_name_check"),
    *("enable_serialization_as_tensor_content", "grpc_max_threads", "tensorflow_intra_op_parallelism"),
    *("tensorflow_inter_op_parallelism", "enable_per_model_batching_parameters"),
}
"""those that tensorflow_model_server 2.20 has too"""
MACHINE_DEPENDENT_DEFAULTS = {"grpc_max_threads": "4 × CPUs"}
ENDPOINTS = {
    "/healthz": "200 `ok` while the process answers; needs no token",
    "/readyz": "200 `ready` while every model that should have a version has one, else 503; needs no token",
    "/hotswap/models": "the repository that is served, and every version of every model, as JSON: see "
    "[Watching it](serving.md#watching-it)",
}
"""what the server answers on paths that TensorFlow Serving does not use"""


def reference() -> str:
    """The whole page."""
    sections = {
        "Commands": commands(),
        "Exit codes": exit_codes(),
        "Settings": settings(),
        "Fields of a recipe": recipe(),
        "Thresholds of a recipe": thresholds(),
        "Flags of the model server": flags(),
        "Metrics": metrics(),
        "Endpoints beyond TensorFlow Serving": endpoints(),
    }
    lines = ["# Reference", "", "Generated from the code by `make reference`; do not edit it by hand.", ""]
    lines += [f"- [{title}](#{title.lower().replace(' ', '-')})" for title in sections]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def commands() -> Iterator[str]:
    """What ``--help`` prints for each command."""
    for name in COMMANDS:
        if name == "serve":
            help_text = "Usage: hotswap serve [--json] [FLAG]...\n\n  Run the model server alone; its flags are below."
        else:
            help_text = printed_by(name, "--help")
        yield from (f"### hotswap {name}", "", "```text", help_text.strip(), "```", "")


@cache
def printed_by(*arguments: str) -> str:
    """What a command prints on a terminal of 80 columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with redirect_stdout(io.StringIO()) as printed:
            assert cli.run(arguments) == 0
        return printed.getvalue()
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def exit_codes() -> Iterator[str]:
    """Those that the docstring of the program lists."""
    found = re.findall(r"(\d+) ([^,.]+)[,.]", inspect.getdoc(cli.main) or "")
    yield from table(("code", "meaning"), found)


def settings() -> Iterator[str]:
    """Every environment variable of hotswap's own."""
    yield from table(
        ("variable", "default", "meaning"),
        (
            (f"`HOTSWAP_{name.upper()}`", code(field.default), field.description or "")
            for name, field in Settings.model_fields.items()
        ),
    )


def thresholds() -> Iterator[str]:
    """Every field of `Thresholds`."""
    yield from fields("threshold", Thresholds)


def recipe() -> Iterator[str]:
    """Every field of `Recipe`."""
    yield "[Recipes](recipes.md) shows them at work."
    yield ""
    yield from fields("field", Recipe)


def fields(kind: str, described: type) -> Iterator[str]:
    """The fields of a data class, in the words of their docstrings."""
    source = inspect.getsource(described)
    rows = []
    for field in dataclasses.fields(described):
        words = re.search(rf'^    {field.name}: .*\n    """((?:.|\n)*?)"""', source, re.MULTILINE)
        assert words is not None, field.name
        default = None if field.default is dataclasses.MISSING or field.name == "thresholds" else field.default
        rows.append((f"`{field.name}`", code(default), " ".join(words[1].split()).replace("``", "`")))
    yield from table((kind, "default", "meaning"), rows)


def flags() -> Iterator[str]:
    """Every flag, those that TensorFlow Serving does not have first."""
    meanings = flag_meanings()
    defaults = {**flag_defaults(), **MACHINE_DEPENDENT_DEFAULTS}
    own = [name for name in defaults if name not in TENSORFLOW_SERVING_FLAGS]
    for intro, names in (
        ("Beyond TensorFlow Serving:", own),
        ("As in `tensorflow_model_server` 2.20:", [name for name in defaults if name not in own]),
    ):
        yield from (intro, "")
        yield from table(
            ("flag", "default", "meaning"), ((f"`--{name}`", code(defaults[name]), meanings[name]) for name in names)
        )
        yield ""
    yield f"Accepted without effect: {', '.join(f'`--{name}`' for name in flags_without_effect())}."


def metrics() -> Iterator[str]:
    """Every metric of the Prometheus page."""
    yield (
        f"On `{DEFAULT_PATH}`, or the path in `--monitoring_config_file`, which turns the page on; `hotswap up` does. "
        "Each name begins with `:tensorflow:serving:`."
    )
    yield ""
    yield from table(
        ("metric", "kind", "labels", "TensorFlow Serving", "meaning"),
        (
            (f"`{name}`", each.kind, ", ".join(map(code, each.labels)), "no" if each.is_own else "yes", each.help)
            for name, each in sorted(METRICS.items())
        ),
    )
    yield ""
    yield "Under names of their own, beside those of the process (`process_…`):"
    yield ""
    yield from families(ProcessMetrics(cast(Any, _NoModels())).collect())
    yield ""
    yield "The operator of `hotswap up` has those of the pipeline on `/metrics` of `HOTSWAP_OPERATOR_PORT`:"
    yield ""
    nothing = Settings(home=Path("/nonexistent"), models_repo=Path("/nonexistent"))
    yield from families(Exposition(nothing).collect())
    yield ""
    yield "And `hotswap agent --metrics-port PORT` has, on `/metrics` of that port, beside those of the process:"
    yield ""
    yield from families(each for each in AgentMetrics().registry.collect() if each.name.startswith("hotswap_"))


def families(found: Iterable[Any]) -> Iterator[str]:
    """A table of metrics that Prometheus's client library writes."""
    suffixes = {"counter": "_total"}
    yield from table(
        ("metric", "kind", "labels", "meaning"),
        (
            (
                f"`{each.name}{suffixes.get(each.type, '')}`",
                each.type,
                ", ".join(map(code, getattr(each, "_labelnames", ()))),
                each.documentation,
            )
            for each in found
        ),
    )


class _NoModels:
    """What a server without models serves."""

    def names(self) -> list[str]:
        return []


def endpoints() -> Iterator[str]:
    """The paths that TensorFlow Serving does not use."""
    yield from table(("GET", "answer"), ((f"`{path}`", answer) for path, answer in ENDPOINTS.items()))


def decisions() -> str:
    """The index of the decisions."""
    path = DECISIONS / "README.md"
    before = path.read_text("utf-8").partition("\n- [")[0]
    entries = []
    for page in sorted(DECISIONS.glob("[0-9]*.md")):
        title = page.read_text("utf-8").splitlines()[0].partition(". ")[2]
        entries.append(f"- [{page.name[:4]}]({page.name}) {title}")
    return "\n".join([before, *entries]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def code(value: object) -> str:
    """A value as code; nothing where there is none."""
    return "" if value in (None, "") else f"`{value}`"


GENERATED: Mapping[Path, Callable[[], str]] = {
    DOCS / "reference.md": reference,
    DECISIONS / "README.md": decisions,
}

if __name__ == "__main__":
    for path, generate in GENERATED.items():
        path.write_text(generate(), "utf-8")
