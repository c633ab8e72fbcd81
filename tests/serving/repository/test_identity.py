"""Every server says which repository it serves, and both of its ports which server it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clients import GrpcClient, RestClient
from clients.client import Served
from serving.repository.model_config import ModelEntry, render
from serving.repository.store import Repository


def served(server: Any) -> Served:
    """What the server says of itself."""
    with RestClient(f"http://127.0.0.1:{server.rest_port}") as client:
        reported = client.served()
    assert reported is not None
    return reported


def repository(root: Path, tiny_model: Any, *models: str) -> Repository:
    """A repository with version 1 of these models, and an identity."""
    found = Repository(root)
    found.check_writable()
    for model in models:
        tiny_model(found.base_path(model), 1)
    found.write_config(render([entry_of(found, model) for model in models]) or "model_config_list {}")
    return found


def entry_of(found: Repository, model: str) -> ModelEntry:
    return ModelEntry(model, str(found.base_path(model)))


def reload(server: Any, entries: Sequence[ModelEntry]) -> None:
    with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
        client.reload(entries)


@pytest.mark.parametrize("models", [(), ("iris",)])
def test_a_server_tells_the_repository_of_its_config(
    models: tuple[str, ...], tiny_model: Any, model_server: Any, tmp_path: Path
) -> None:
    """Also with an empty ``models.config``."""
    own = repository(tmp_path / "own", tiny_model, *models)
    reported = served(model_server(model_config_file=own.config_path))
    assert (reported.repository, reported.repository_id) == (str(own.root), own.identity())
    assert own.identity()


def test_a_server_of_one_base_path_tells_the_repository_around_it(
    tiny_model: Any, model_server: Any, tmp_path: Path
) -> None:
    """``--model_base_path`` needs no config file."""
    own = repository(tmp_path / "own", tiny_model, "iris")
    reported = served(model_server(model_name="iris", model_base_path=str(own.base_path("iris"))))
    assert (reported.repository, reported.repository_id) == (str(own.root), own.identity())


def test_a_repository_that_is_made_or_replaced_later_is_reported_as_it_is(
    tiny_model: Any, model_server: Any, tmp_path: Path
) -> None:
    """The identity is looked up at each question."""
    root = tmp_path / "own"
    root.mkdir()
    (root / "models.config").write_text("model_config_list {}")
    server = model_server(model_config_file=root / "models.config")
    assert (served(server).repository, served(server).repository_id) == (str(root), None)
    first = repository(root, tiny_model).identity()
    assert served(server).repository_id == first
    shutil.rmtree(root)
    assert served(server).repository_id is None
    assert served(server).repository_id != repository(root, tiny_model).identity() != first


def test_a_server_that_was_reloaded_by_others_tells_the_repository_that_it_is_for(
    tiny_model: Any, model_server: Any, tmp_path: Path
) -> None:
    """Another repository's models do not make it another repository's server."""
    own, other = (repository(tmp_path / name, tiny_model, "iris") for name in ("own", "other"))
    config = tmp_path / "elsewhere.config"
    config.write_text("model_config_list {}")
    for server in (model_server(model_config_file=own.config_path), model_server(model_config_file=config)):
        reload(server, [entry_of(own, "iris")])
        reload(server, [ModelEntry("other", str(other.base_path("iris")))])
        assert served(server).repository_id == own.identity()


def test_a_server_of_several_repositories_belongs_to_none(tiny_model: Any, model_server: Any, tmp_path: Path) -> None:
    """Neither of them may take it over."""
    own, other = (repository(tmp_path / name, tiny_model, name) for name in ("own", "other"))
    config = tmp_path / "both.config"
    config.write_text(render([entry_of(own, "own"), entry_of(other, "other")]))
    assert served(model_server(model_config_file=config)).repository is None


@pytest.mark.parametrize("native_grpc", [True, False])
def test_both_ports_of_a_server_tell_the_same(
    tiny_model: Any, model_server: Any, tmp_path: Path, native_grpc: bool
) -> None:
    """And those of another server something else."""
    own = repository(tmp_path / "own", tiny_model, "no_such_model")
    reported = []
    for config in (own.config_path, repository(tmp_path / "other", tiny_model).config_path):
        server = model_server(model_config_file=config, native_grpc=native_grpc)
        with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
            assert served(server).server == client.server()
            reported.append(client.server())
    assert None not in reported
    assert len(set(reported)) == 2


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"id": 5}'])
def test_an_identity_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    """It is not made again either: who wrote it may know it."""
    (tmp_path / ".repository.json").write_text(content)
    Repository(tmp_path).check_writable()
    assert Repository(tmp_path).identity() is None
    assert (tmp_path / ".repository.json").read_text() == content


def test_the_first_write_makes_the_identity_and_no_later_one_changes_it(tmp_path: Path) -> None:
    """Reading makes none."""
    made = Repository(tmp_path / "models")
    assert made.identity() is None
    assert made.models() == []
    assert not made.root.exists()
    with made.lock("iris"):
        first = made.identity()
    with made.lock_config():
        made.check_writable()
    assert first == made.identity() == json.loads((made.root / ".repository.json").read_text())["id"]


def test_the_page_of_a_server_that_tells_no_repository_is_read(tmp_path: Path, tiny_model: Any) -> None:
    """Before the page gave the repository it was the list of versions; what is neither is no page of ours."""
    from clients.rest_client import _served

    row = {"model": "iris", "version": 1, "state": "AVAILABLE", "labels": [], "digest": None}
    assert _served([row]) == Served(None, None, None, [row])
    for page in ({"models": "iris"}, {"status": "ok"}, [1], "text", None, {"models": [{"name": "iris"}]}):
        assert _served(page) is None
