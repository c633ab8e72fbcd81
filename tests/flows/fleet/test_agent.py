"""A publish agent does what the registry says, and nothing where it says nothing."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from flows.fleet.agent import Agent, Turn
from flows.fleet.fetching import fetch
from flows.local.stack import server_flags
from flows.promotion.removal import remove
from flows.promotion.retirement import restore, retire
from flows.registry.fleet_registry import RegisteredFiles
from flows.registry.statement import Statement
from flows.settings import Settings
from serving.protocol.errors import RepositoryError
from serving.repository.model_config import parse
from serving.repository.replica import Replica, read_problems
from serving.repository.saved_model_files import digest
from serving.repository.signatures import make_key_pair
from serving.repository.store import Repository
from tests.faults.points import Point, after, at, before, counted, environment, killed_at
from tests.pipelines import Pipeline
from tests.processes import finish, hotswap, start


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
    for become in (Replica.claim, partial(Replica.follow, repository="another")):
        with pytest.raises(RepositoryError, match="is a repository of its own"):
            become(Replica(published.repository.root))


def test_a_model_that_cannot_be_a_directory_holds_up_no_other(published: Pipeline, replica: Replica) -> None:
    """MLflow takes more names than a repository; a host passes those over that are none, and follows the others."""
    for name in (".staging", "a model"):
        published.registry._client.create_registered_model(name)
        published.registry.state(name, stated(published))
    assert agent(published, replica).run_once() == Turn(True, frozenset(), {})
    assert replica.versions(published.model) == [1]


def test_what_no_trusted_key_has_signed_is_not_fetched(offline: Pipeline, replica: Replica, tmp_path: Path) -> None:
    """Where there are trusted keys, a version without their signature does not even come into the directory."""
    offline.settings = offline.settings.model_copy(update={"fleet": True})
    offline.promote(1)
    trusted = make_key_pair(tmp_path / "key")
    problems = agent(offline, replica, trusted).run_once().problems
    assert "is not signed" in problems[offline.model][1]
    assert replica.versions(offline.model) == []
    assert not replica.staged_path(offline.model, 1).exists()


def test_a_server_writes_nothing_into_the_directory_of_an_agent(replica: Replica, tmp_path: Path) -> None:
    """`hotswap serve` may have it read-only, before and after anything is known of its repository."""
    replica.claim()
    replica.write_config("model_config_list {}")
    before_it = {path: path.stat().st_mtime_ns for path in replica.root.rglob("*")}
    flags = server_flags(Settings(home=tmp_path / "home", models_repo=replica.root))
    assert f"--model_config_file={replica.config_path}" in flags
    assert {path: path.stat().st_mtime_ns for path in replica.root.rglob("*")} == before_it


def test_a_directory_has_one_agent(replica: Replica) -> None:
    """The second is told, and changes nothing."""
    with (
        replica.kept_by_agent(),
        pytest.raises(RepositoryError, match="Another publish agent keeps"),
        replica.kept_by_agent(),
    ):
        raise AssertionError


def take_turns(repository: str | None, root: Path) -> None:
    """What the agent of a host does, in a process that may be killed."""
    Agent(Replica(root), [], 0.1, lambda turn: None, repository).run_once()


@pytest.mark.parametrize(
    "point",
    [
        after(Repository.publish),
        *(
            pytest.param(point, marks=pytest.mark.soak)
            for point in (
                before(RegisteredFiles.download),
                after(RegisteredFiles.download),
                after(fetch),
                before(Repository.publish),
                before(Repository.write_config),
                after(Repository.write_config),
                before(Repository.retire),
                after(Repository.retire),
                after(Replica.delete_dropped),
            )
        ),
    ],
    ids=lambda point: f"{'after' if point.is_after else 'before'} {point.step.__qualname__}",
)
def test_an_agent_that_is_killed_goes_on(published: Pipeline, replica: Replica, point: Point) -> None:
    """Wherever it was killed, what is in its directory is whole, and the next one comes to what the registry says."""
    model = published.model
    agent(published, replica).run_once()
    second = published.promote(2)
    retire(published.deployment, 1)
    killed_at(point, take_turns, published.repository.identity(), replica.root)
    assert replica.versions(model)
    for version in replica.versions(model):
        replica.check_files(model, version)
    assert agent(published, replica).run_once() == Turn(True, frozenset(), {})
    assert (replica.versions(model), replica.retired(model)) == ([second], [])
    assert not replica.staged_path(model, second).exists()
    (entry,) = parse(replica.read_config())
    assert entry.labels == {"stable": second}


def test_what_has_come_is_not_fetched_again(published: Pipeline, replica: Replica) -> None:
    """An agent that was killed after two files fetches only the others."""
    files = len([path for path in published.repository.path(published.model, 1).rglob("*") if path.is_file()]) - 1
    killed_at(after(RegisteredFiles.download, 2), take_turns, published.repository.identity(), replica.root)
    with counted(RegisteredFiles.download) as fetched:
        agent(published, replica).run_once()
    assert len(fetched) == files - 2
    assert replica.versions(published.model) == [1]


def test_once_fetches_what_servers_start_with(published: Pipeline, replica: Replica) -> None:
    """`hotswap agent --once` ends when all is there; it fails where a version that clients ask for is not."""
    settings = published.settings.model_copy(update={"models_repo": replica.root, "fleet": False})
    variables = {**os.environ, **environment(settings)}
    command = ("agent", "--once", "--repository", str(published.repository.identity()))
    done = hotswap(variables, *command)
    assert (done.returncode, replica.versions(published.model)) == (0, [1])
    wrong = replace(stated(published), versions={1: stated(published).versions[1], 9: "0"}, labels={"stable": 9})
    published.registry.state(published.model, wrong)
    done = hotswap(variables, *command)
    assert done.returncode == 1
    assert f"Labelled versions are not here: {published.model} 9:" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.soak
def test_a_large_version_takes_little_memory(published: Pipeline, replica: Replica, tmp_path: Path) -> None:
    """A file of 300 MB passes through an agent that never holds a tenth of it."""
    source = published.sources(tmp_path / "large", 3, "saved_model")
    (source / "assets").mkdir(exist_ok=True)
    with (source / "assets" / "table").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(1 << 20))
    published.sources = lambda *_: source
    version = published.promote(3)
    peak = tmp_path / "peak"
    assert finish(start(fetch_measured, published.repository.identity(), replica.root, peak)) == 0
    assert replica.versions(published.model) == [1, version]
    assert int(peak.read_text()) < 30_000  # kB


def fetch_measured(repository: str | None, root: Path, peak: Path) -> None:
    """Take turns, and write by how many kilobytes the largest resident memory of this process has grown."""
    Path("/proc/self/clear_refs").write_text("5")
    before_it = peak_kilobytes()
    take_turns(repository, root)
    peak.write_text(str(peak_kilobytes() - before_it))


def peak_kilobytes() -> int:
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1])


def test_files_come_from_an_object_store(offline: Pipeline, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where MLflow does not pass them on: then a host asks the store itself."""
    store = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://{}:{}".format(*store.get_host_and_port()))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hotswap")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"]).create_bucket(Bucket="models")
    try:
        offline.settings = offline.settings.model_copy(update={"fleet": True})
        offline.model = f"{offline.model}_in_s3"
        location = f"s3://models/{offline.model}"
        offline.registry._client.create_experiment(offline.model, artifact_location=location)
        offline.run = offline.registry.start_run(offline.model, "run", {}, {})
        offline.kept = {}
        version = offline.promote(1)
        assert agent(offline, replica).run_once() == Turn(True, frozenset(), {})
        put_outside(offline, version)
        outside = agent(offline, Replica(replica.root.parent / "other")).run_once().problems
        assert "which no SavedModel has" in outside[offline.model][version]
    finally:
        store.stop()
    assert replica.versions(offline.model) == [version]
    assert not (replica.root.parent / "other" / "stolen").exists()
    assert digest(replica.path(offline.model, version)) == offline.repository.stamp(offline.model, version).digest


def put_outside(pipeline: Pipeline, version: int) -> None:
    """Give the version in the object store a file whose name leads out of every directory that it is copied to."""
    source = pipeline.registry._client.get_model_version_download_uri(pipeline.model, str(version))
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    client.put_object(Bucket=bucket, Key=f"{prefix}/artifacts/saved_model/../../../../../../stolen", Body=b"x")
