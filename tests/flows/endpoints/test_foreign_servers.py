"""A command never acts on a server of another repository: it says whose that is, and changes nothing anywhere."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from clients import GrpcClient, RestClient
from clients.client import PredictClient
from flows.cli import run
from flows.endpoints.agreement import ServersDisagree
from flows.endpoints.ownership import ForeignServer
from flows.promotion.bake import watch
from flows.promotion.deployment import Deployment
from flows.promotion.labelling import remove_label, set_label
from flows.promotion.labels import Labels
from flows.promotion.retention import tidy
from flows.promotion.retirement import restore, retire
from flows.promotion.rollback import rollback
from flows.promotion.verification import verify
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.reports.doctor import examine
from flows.reports.explain import explain
from flows.reports.status import overview
from flows.settings import Settings
from serving.protocol.errors import HotswapError, ServerUnavailable, Unauthenticated
from serving.repository.model_config import ModelEntry, render
from serving.repository.store import Repository
from tests.conftest import TinyModel, at_home, model_servers, offline_pipeline, put_online
from tests.faults.points import environment
from tests.pipelines import ROWS, Pipeline, with_endpoints

pytestmark = pytest.mark.xdist_group("foreign-servers")  # one worker has the first repository

LENIENT = {"allow_version_labels_for_unavailable_models": True}
COMMANDS: dict[str, Callable[[Settings, str], object]] = {
    "train, promote": lambda settings, model: Deployment(settings, model).servers.ask_first(model),
    "verify": lambda settings, model: verify(Deployment(settings, model), 2),
    "label": lambda settings, model: set_label(Deployment(settings, model), "blue", 2),
    "label --remove": lambda settings, model: remove_label(Deployment(settings, model), "canary"),
    "rollback": lambda settings, model: rollback(Deployment(settings, model)),
    "retire": lambda settings, model: retire(Deployment(settings, model), 2, "for a test"),
    "restore": lambda settings, model: restore(Deployment(settings, model), 3),
    "tidy": lambda settings, model: tidy(Deployment(settings.model_copy(update={"keep_versions": 1}), model)),
    "reconcile": lambda settings, model: repair(Deployment(settings, model)),
    "reconcile --dry-run": lambda settings, model: repair(Deployment(settings, model), dry_run=True),
    "bake": lambda settings, model: watch(Deployment(settings, model), 2, 1, 0.1),
}
COMMAND_LINES = (
    "train iris",
    "promote iris --run 0",
    "label MODEL blue 2",
    "label MODEL canary --remove",
    "rollback MODEL",
    "retire MODEL 2 --force test",
    "restore MODEL 3",
    "tidy MODEL",
    "remove MODEL --force test",
    "reconcile",
    "reconcile MODEL",
    "predict MODEL 1,2,3,4",
    "predict MODEL 1,2,3,4 --grpc",
)


def new_identity(root: Path) -> Repository:
    """A copied repository becomes one of its own."""
    (root / ".repository.json").unlink()
    repository = Repository(root)
    repository.check_writable()
    return repository


def populated(pipeline: Pipeline) -> Pipeline:
    """Version 2 is stable, 1 is canary, 3 retired."""
    for kind in (1, 2, 3):
        pipeline.promote(kind)
    rollback(pipeline.deployment)
    set_label(pipeline.deployment, "canary", 1)
    return pipeline


@pytest.fixture(scope="module")
def first(mlflow_home: Path, tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A repository with its server, for all tests that change nothing in it."""
    with at_home(mlflow_home), model_servers() as start:
        yield populated(put_online(offline_pipeline(mlflow_home, tiny_model, tmp_path_factory.mktemp("first")), start))


@pytest.fixture
def changing(pipeline: Pipeline) -> Pipeline:
    """The same, for one test."""
    return populated(pipeline)


@pytest.fixture
def second(first: Pipeline, tmp_path: Path) -> Settings:
    """Another repository with the same models and files, whose settings have the same ports."""
    shutil.copytree(first.repository.root, tmp_path / "second", ignore=shutil.ignore_patterns(".locks"))
    own = new_identity(tmp_path / "second")
    Labels(own, first.model).write({"stable": 2, "canary": 1})
    return first.settings.model_copy(update={"models_repo": own.root})


def contents(*roots: Path) -> dict[str, bytes]:
    """All that commands keep below these directories."""
    files = [file for root in roots for file in root.rglob("*") if file.is_file() and ".locks" not in file.parts]
    return {str(file): file.read_bytes() for file in files}


@contextmanager
def nothing_changes(first: Pipeline, *others: Settings) -> Iterator[None]:
    """Neither directories nor registry nor what the server of the first answers, which is asked all the while."""
    roots = [first.repository.root, *(settings.models_repo for settings in others)]
    before = contents(*roots), first.registry.aliases(first.model)
    ended = threading.Event()
    answers: list[object] = []

    def ask(client: PredictClient, label: str, version: int) -> None:
        while not ended.wait(0.02):
            try:
                prediction = client.predict(first.model, ROWS, label=label)
                good = prediction.version == version and (prediction.outputs["output"] == first.answers(version)).all()
                answers.append(True if good else prediction)
            except HotswapError as exc:
                answers.append(exc)

    url, target = first.settings.rest_url, first.settings.grpc_target
    with RestClient(url) as rest, GrpcClient(target) as grpc:
        asking = [
            threading.Thread(target=ask, args=(client, label, version))
            for client in (rest, grpc)
            for label, version in (("stable", 2), ("canary", 1))
        ]
        for thread in asking:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in asking:
                thread.join()
    assert len(answers) >= len(asking)
    assert [each for each in answers if each is not True] == []
    assert (contents(*roots), first.registry.aliases(first.model)) == before


def assert_refused(settings: Settings, model: str, *words: str, kind: type[HotswapError] = ForeignServer) -> None:
    """Every command says the same one sentence."""
    for name, command in COMMANDS.items():
        with pytest.raises(kind) as caught:
            command(settings, model)
        message = str(caught.value)
        assert all(word in message for word in words), (name, message)
        assert "\n" not in message


def test_no_command_acts_on_the_server_of_another_repository(first: Pipeline, second: Settings) -> None:
    """It serves the same versions, with the same files, and is another one's; the sentence names both."""
    with nothing_changes(first, second):
        assert_refused(second, first.model, str(first.repository.root), str(second.models_repo), second.rest_url)


def test_every_command_ends_with_one_sentence_about_a_foreign_server(
    first: Pipeline, second: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; it names both repositories, and neither has changed."""
    for name, value in environment(second).items():
        monkeypatch.setenv(name, value)
    with nothing_changes(first, second):
        for arguments in COMMAND_LINES:
            assert run(arguments.replace("MODEL", first.model).split()) == 1, arguments
            told = capsys.readouterr()
            assert told.out == "", arguments
            (sentence,) = [line for line in told.err.splitlines() if line.startswith("hotswap: ")]
            assert str(first.repository.root) in sentence
            assert str(second.models_repo) in sentence
            assert "Traceback" not in told.err


def test_a_model_that_is_not_published_here_is_asked_anywhere(
    first: Pipeline, second: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has no model of that name cannot take one for the other."""
    shutil.rmtree(Repository(second.models_repo).base_path(first.model))
    for name, value in environment(second).items():
        monkeypatch.setenv(name, value)
    assert run(["predict", first.model, "1,2,3,4"]) == 0, capsys.readouterr().err


def test_a_copy_of_a_repository_does_not_act_on_its_server(first: Pipeline, tmp_path: Path) -> None:
    """The copy has the identity too, but the repository that is served is there, and another directory."""
    copy = tmp_path / "copy"
    shutil.copytree(first.repository.root, copy)
    settings = first.settings.model_copy(update={"models_repo": copy})
    with nothing_changes(first, settings):
        assert_refused(settings, first.model, f"{copy} is a copy", str(first.repository.root))


def test_one_foreign_server_among_several_stops_everything(
    first: Pipeline, second: Settings, model_server: Any
) -> None:
    """The other one, which is ours, is not changed either."""
    own = model_server(model_config_file=Repository(second.models_repo).config_path, **LENIENT)
    theirs = (first.settings.rest_port, first.settings.grpc_port)
    both = with_endpoints(second, (own.rest_port, own.grpc_port), theirs)
    with nothing_changes(first, both):
        assert_refused(both, first.model, f":{theirs[0]}", str(first.repository.root))
    found = overview(both, first.model)
    assert [bool(each.problem) for each in found.servers] == [False, True]


def test_reports_name_a_foreign_server_and_do_not_take_its_versions_for_ours(first: Pipeline, second: Settings) -> None:
    """Status, explain and doctor work without it."""
    with nothing_changes(first, second):
        found = overview(second, first.model)
        assert str(first.repository.root) in found.servers[0].problem
        assert {row.state for row in found.versions} == {"NOT SERVED", "RETIRED"}
        assert explain(Deployment(second, first.model), 2).state == "NOT SERVED"
        assert any(str(first.repository.root) in finding.what for finding in examine(second))


@pytest.mark.parametrize("how", ["symlink", "trailing parts"])
def test_another_way_to_write_the_path_is_the_same_repository(changing: Pipeline, tmp_path: Path, how: str) -> None:
    """A symbolic link to it, or a path with dots."""
    if how == "symlink":
        path = tmp_path / "link"
        path.symlink_to(changing.repository.root)
    else:
        path = changing.repository.root / ".." / changing.repository.root.name
    settings = changing.settings.model_copy(update={"models_repo": path})
    Deployment(settings, changing.model).servers.ask_first(changing.model)
    set_label(Deployment(settings, changing.model), "blue", 1)
    assert repair(changing.deployment).remaining == ()
    assert find(changing.deployment) == []


def test_a_server_that_sees_the_repository_at_another_place_is_ours(
    changing: Pipeline, model_server: Any, tmp_path: Path
) -> None:
    """As on another host: it gets base paths that it can see."""
    elsewhere = tmp_path / "mounted"
    elsewhere.symlink_to(changing.repository.root)
    server = model_server(model_config_file=elsewhere / "models.config", **LENIENT)
    settings = with_endpoints(changing.settings, (server.rest_port, server.grpc_port))
    with Deployment(settings, changing.model).servers.running() as servers:
        assert servers is not None
        servers.each(lambda each: each.reload(changing.repository))
    rows = requests.get(f"http://127.0.0.1:{server.rest_port}/hotswap/models", timeout=10).json()["models"]
    loaded = [row for row in rows if row["path"]]
    assert {Path(row["path"]).parent.parent for row in loaded} <= {elsewhere, changing.repository.root}
    assert all(row["in_repository"] for row in loaded)


class _Page(http.server.BaseHTTPRequestHandler):
    """A web server of another kind, or one that forwards to a model server and has no page of its own."""

    upstream = ""
    body = b"<html>hello</html>"
    status = 200

    def do_GET(self) -> None:
        if not self.upstream:
            self._answer(self.status, self.body)
        elif self.path.startswith("/hotswap/"):
            self._answer(404, b'{"error": "Malformed request"}')
        else:
            self._forward(requests.get(self.upstream + self.path, timeout=10))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._forward(requests.post(self.upstream + self.path, body, timeout=10))

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _forward(self, answer: requests.Response) -> None:
        self._answer(answer.status_code, answer.content)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def page() -> Iterator[Callable[..., int]]:
    """A factory of web servers; their port."""
    running = []

    def start(**attributes: object) -> int:
        handler = type("Page", (_Page,), attributes)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever).start()
        running.append(server)
        return int(server.server_address[1])

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def without_page(settings: Settings, page: Callable[..., int]) -> Settings:
    """The same server, which does not report what it serves, as TensorFlow Serving does not."""
    return settings.model_copy(update={"rest_port": page(upstream=settings.rest_url)})


def test_a_server_that_cannot_tell_is_known_by_what_it_serves(changing: Pipeline, page: Callable[..., int]) -> None:
    """One that serves what is live works as ever."""
    changing.settings = without_page(changing.settings, page)
    version = changing.promote(4)
    assert changing.row(version).state == "AVAILABLE"
    assert repair(changing.deployment).remaining == ()


@pytest.mark.parametrize("difference", ["another version", "other models"])
def test_a_server_that_cannot_tell_and_serves_something_else_is_refused(
    first: Pipeline, second: Settings, page: Callable[..., int], difference: str
) -> None:
    """A version that the repository never had, or nothing of what is live in it."""
    own = Repository(second.models_repo)
    if difference == "another version":
        shutil.rmtree(own.root / ".journal")
        own.path(first.model, 1).rename(own.path(first.model, 7))
        Labels(own, first.model).write({"stable": 2, "canary": 7})
    else:
        own.base_path(first.model).rename(own.root / "another")
        (own.root / ".journal").rename(own.root / ".journals")
        entry = ModelEntry("another", str(own.root / "another"), labels={"stable": 2, "canary": 1})
        own.write_config(render([entry]))
        (own.root / ".retired" / first.model).rename(own.root / ".retired" / "another")
    model = first.model if difference == "another version" else "another"
    settings = without_page(second, page)
    with nothing_changes(first, settings):
        assert_refused(settings, model, str(own.root), settings.rest_url)


def test_a_new_and_empty_server_that_cannot_tell_is_taken(offline: Pipeline, model_server: Any, page: Any) -> None:
    """There is nothing on it that could be lost, nor anything live in the repository."""
    config = offline.directory / "models.config"
    config.write_text("model_config_list {}")
    server = model_server(model_config_file=config)
    port = page(upstream=f"http://127.0.0.1:{server.rest_port}")
    offline.settings = offline.settings.model_copy(update={"rest_port": port, "grpc_port": server.grpc_port})
    assert offline.row(offline.promote(1)).state == "AVAILABLE"


def test_what_is_no_model_server_is_named(first: Pipeline, page: Callable[..., int]) -> None:
    """Such as the MLflow page, on both ports or on one."""
    for status, body in (
        (200, b"<html>"),
        (404, b"<html>"),
        (200, b'{"status": "ok"}'),
        (404, b'{"detail": "Not Found"}'),
        (200, b"[]"),
    ):
        port = page(status=status, body=body)
        for ports in ({"rest_port": port, "grpc_port": port}, {"rest_port": port}):
            settings = first.settings.model_copy(update={**ports, "server_timeout_seconds": 5.0})
            with pytest.raises(ForeignServer, match=rf"127.0.0.1:{port} is no model server"):
                Deployment(settings, first.model).servers.ask_first(first.model)


def test_ports_of_two_servers_are_named(first: Pipeline, second: Settings, model_server: Any) -> None:
    """Even where both are our own: one would be reloaded, and the other asked."""
    other = model_server(model_config_file=Repository(second.models_repo).config_path, **LENIENT)
    replica = model_server(model_config_file=first.repository.config_path, **LENIENT)
    for port in (other.grpc_port, replica.grpc_port):
        settings = first.settings.model_copy(update={"grpc_port": port})
        with nothing_changes(first, second):
            assert_refused(settings, first.model, "two different servers", str(port), str(settings.rest_port))


def test_a_server_that_wants_another_token_is_named(offline: Pipeline, model_server: Any) -> None:
    """The next step is the file with the right one; with that it works."""
    token = offline.directory / "token"
    token.write_text("right")
    Repository(offline.settings.models_repo).check_writable()
    (offline.settings.models_repo / "models.config").write_text("model_config_list {}")
    server = model_server(model_config_file=offline.settings.models_repo / "models.config", token_file=token)
    ports = {"rest_port": server.rest_port, "grpc_port": server.grpc_port}
    settings = offline.settings.model_copy(update=ports)
    with pytest.raises(Unauthenticated, match="HOTSWAP_TOKEN_FILE"):
        Deployment(settings, offline.model).servers.ask_first()
    offline.settings = settings.model_copy(update={"token_file": token})
    assert offline.row(offline.promote(1)).state == "AVAILABLE"


def test_a_dead_server_is_named_before_anything_begins(replicas: tuple[Pipeline, list[Any]]) -> None:
    """Promotion, label, rollback and restore change nothing; status and doctor count."""
    pipeline, (_, dead) = replicas
    for kind in (1, 2, 3):
        pipeline.promote(kind)
    rollback(pipeline.deployment)
    set_label(pipeline.deployment, "canary", 1)
    dead.stop()
    pipeline.be_impatient()
    before = contents(pipeline.repository.root), pipeline.registry.aliases(pipeline.model)
    for name in ("train, promote", "label", "label --remove", "rollback", "retire", "restore", "tidy"):
        with pytest.raises(ServerUnavailable, match=str(dead.grpc_port)):
            COMMANDS[name](pipeline.settings, pipeline.model)
    assert (contents(pipeline.repository.root), pipeline.registry.aliases(pipeline.model)) == before
    assert pipeline.row(2).state == "served by 1 of 2"
    findings = [finding for finding in examine(pipeline.settings) if finding.model == pipeline.model]
    assert any("is served by 1 of 2" in each.what and str(dead.rest_port) in each.what for each in findings)
    assert not any("retire" in each.next_step for each in findings)


def test_servers_that_disagree_are_named_before_anything_begins(replicas: tuple[Pipeline, list[Any]]) -> None:
    """One has lost a version that the other serves; reconcile brings it back."""
    pipeline, (_, forgetful) = replicas
    version = pipeline.promote(1)
    with GrpcClient(f"127.0.0.1:{forgetful.grpc_port}") as client:
        client.reload([])
    with pytest.raises(ServersDisagree, match=rf"served by 1 of 2: .*:{forgetful.rest_port} has it as"):
        pipeline.deployment.servers.ask_first(pipeline.model)
    assert pipeline.row(version).state == "served by 1 of 2"
    repair(pipeline.deployment)
    pipeline.deployment.servers.ask_first(pipeline.model)
    assert find(pipeline.deployment) == []
