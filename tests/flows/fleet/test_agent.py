"""A publish agent does what the registry says, and nothing where it says nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from flows.fleet.agent import Agent, Turn
from flows.promotion.removal import remove
from flows.promotion.retirement import restore, retire
from flows.registry.fleet_registry import RegisteredFiles
from flows.registry.statement import Statement
from serving.protocol.errors import RepositoryError
from serving.repository.model_config import parse
from serving.repository.replica import Replica, read_problems
from serving.repository.saved_model_files import digest
from serving.repository.signatures import make_key_pair
from tests.faults.points import at, before
from tests.pipelines import Pipeline


@pytest.fixture
def published(offline: Pipeline) -> Pipeline:
    """A model with one version, which the hosts of a fleet are told of."""
    offline.settings = offline.settings.model_copy(update={"fleet": True})
    offline.promote(1)
    return offline


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(tmp_path / "host")


def agent(pipeline: Pipeline, replica: Replica, trusted: Path | None = None) -> Agent:
    """The agent of a host whose server has not started yet."""
    return Agent(replica, [], 0.1, lambda turn: None, pipeline.repository.identity(), trusted)


def stated(pipeline: Pipeline) -> Statement:
    """What the hosts were told last."""
    text = pipeline.registry._client.get_registered_model(pipeline.model).tags["hotswap.fleet"]
    return Statement.decode(text, pipeline.model)


def test_a_host_has_what_is_published(published: Pipeline, replica: Replica) -> None:
    """Files, label and stamp are the same, below the host's own path; what is retired goes, what is restored comes."""
    model = published.model
    second = published.promote(2)
    turn = agent(published, replica).run_once()
    assert turn == Turn(True, frozenset(), {})
    assert replica.versions(model) == [1, second]
    assert digest(replica.path(model, second)) == published.repository.stamp(model, second).digest
    assert replica.stamp(model, second).run_id == published.run.id
    (entry,) = parse(replica.read_config())
    assert (entry.base_path, entry.labels) == (str(replica.base_path(model)), {"stable": second})
    retire(published.deployment, 1)
    agent(published, replica).run_once()
    assert (replica.versions(model), replica.retired(model)) == ([second], [])
    restore(published.deployment, 1)
    agent(published, replica).run_once()
    assert replica.versions(model) == [1, second]
    remove(published.deployment, "a test")
    agent(published, replica).run_once()
    assert (replica.versions(model), parse(replica.read_config())) == ([], [])


def test_a_slow_download_holds_up_no_other(published: Pipeline, replica: Replica) -> None:
    """Another model is there while the files of the first one are still on their way."""
    slow, go_on, begun = published.model, threading.Event(), threading.Event()
    kept = agent(published, replica)

    def wait() -> None:
        begun.set()
        go_on.wait(30)

    with at(before(RegisteredFiles.download), wait):
        kept.turn()
        assert begun.wait(30)
        published.begin_anew()
        published.promote(1)
        while not replica.versions(published.model):
            kept.turn()
        assert replica.versions(slow) == []
        go_on.set()
        assert kept.run_once().unsettled == frozenset()
    assert replica.versions(slow) == [1]


def test_a_registry_that_cannot_be_read_changes_nothing(
    published: Pipeline, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that does not answer, nor one that has lost the model."""
    agent(published, replica).run_once()
    before_config = replica.read_config()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        elsewhere.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        assert not agent(published, replica).turn().is_read
    published.registry._client.delete_registered_model(published.model)
    assert agent(published, replica).run_once().is_read
    assert (replica.versions(published.model), replica.read_config()) == ([1], before_config)


def test_the_last_version_stays_until_another_has_come(published: Pipeline, replica: Replica) -> None:
    """A version that cannot be had is told, and takes neither the one before nor its label away."""
    agent(published, replica).run_once()
    first = stated(published)
    second = published.promote(2)
    wrong = replace(first, versions={second: "0" * 64}, labels={"stable": second})
    published.registry.state(published.model, wrong)
    turn = agent(published, replica).run_once()
    assert turn.unsettled == {published.model}
    assert "instead of 0000" in turn.problems[published.model][second]
    assert read_problems(replica.root)[published.model].keys() == {str(second)}
    (entry,) = parse(replica.read_config())
    assert (replica.versions(published.model), entry.labels) == ([1], {"stable": 1})


def test_a_host_follows_one_repository(published: Pipeline, replica: Replica) -> None:
    """What another repository says in the same registry is not for it, and it never changes sides."""
    agent(published, replica).run_once()
    assert published.repository.identity() == replica.identity()
    published.registry.state(published.model, replace(stated(published), repository="another", versions={}))
    agent(published, replica).run_once()
    assert replica.versions(published.model) == [1]
    with pytest.raises(RepositoryError, match=r"follows repository .* MLflow tells of repository another"):
        replica.follow("another")
    with pytest.raises(RepositoryError, match="is a repository of its own"):
        Replica(published.repository.root).follow("another")


def test_what_no_trusted_key_has_signed_is_not_fetched(offline: Pipeline, replica: Replica, tmp_path: Path) -> None:
    """Where there are trusted keys, a version without their signature does not even come into the directory."""
    offline.settings = offline.settings.model_copy(update={"fleet": True})
    offline.promote(1)
    trusted = make_key_pair(tmp_path / "key")
    problems = agent(offline, replica, trusted).run_once().problems
    assert "is not signed" in problems[offline.model][1]
    assert replica.versions(offline.model) == []
    assert not replica.staged_path(offline.model, 1).exists()


def test_a_directory_has_one_agent(replica: Replica) -> None:
    """The second is told, and changes nothing."""
    with (
        replica.kept_by_agent(),
        pytest.raises(RepositoryError, match="Another publish agent keeps"),
        replica.kept_by_agent(),
    ):
        raise AssertionError
