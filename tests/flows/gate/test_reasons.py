"""Whoever changes what is live can say why, and it is kept."""

from __future__ import annotations

import pytest

from flows.cli import run
from flows.roll_back import move_back, roll_back
from flows.train_and_promote import promote, train_and_promote
from tests.pipelines import Pipeline

REASON = "the third sensor was replaced; see [ticket 7]"


@pytest.fixture
def command_line(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The command line works on the same repository and server as `pipeline`."""
    settings = pipeline.settings
    for name, value in (
        ("HOME", settings.home),
        ("MODELS_REPO", settings.models_repo),
        ("REST_PORT", settings.rest_port),
        ("GRPC_PORT", settings.grpc_port),
        ("KEEP_VERSIONS", 1),
    ):
        monkeypatch.setenv(f"HOTSWAP_{name}", str(value))
    return pipeline


def test_every_command_that_changes_what_is_live_keeps_the_reason_and_history_shows_it(
    command_line: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each entry of the journal has the reason that its command was given, and the table of history shows it whole."""
    model = command_line.model
    first, second = (str(command_line.promote(kind)) for kind in (1, 2))
    commands = (
        ["label", model, "canary", first],
        ["label", model, "canary", "--remove"],
        ["tidy", model],
        ["restore", model, first],
        ["rollback", model],
        ["restore", model, second],
        ["retire", model, second],
    )
    for number, arguments in enumerate(commands):
        assert run([*arguments, "--reason", f"{REASON} {number}"]) == 0
        assert command_line.journal.read()[-1].facts["why"] == f"{REASON} {number}"
    capsys.readouterr()
    assert run(["history", model]) == 0
    assert capsys.readouterr().out.count(REASON) == len(commands) + 1  # a rollback is announced, and then done


def test_an_empty_reason_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A reason of nothing but blanks says nothing."""
    assert run(["rollback", "iris", "--reason", "  "]) == 2
    assert "write why" in capsys.readouterr().err


def test_flows_take_the_reason_too(pipeline: Pipeline) -> None:
    """Who starts a flow from Prefect's page gives it as a parameter."""
    for flow in (roll_back, train_and_promote, promote):
        assert "reason" in flow.parameters.properties
    pipeline.promote(1)
    pipeline.promote(2)
    move_back.fn(pipeline.deployment, None, REASON)
    assert pipeline.journal.read()[-1].facts["why"] == REASON
