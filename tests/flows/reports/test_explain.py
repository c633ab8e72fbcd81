"""Where a version comes from, and whether its files are still those that were judged."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from flows.promotion.retirement import retire
from flows.registry.tags import source_tags
from flows.reports.explain import explain, lines
from serving.protocol.errors import VersionNotFound
from tests.pipelines import Pipeline


def test_a_version_is_followed_back_to_run_data_and_gate(pipeline: Pipeline) -> None:
    """Directory, stamp, registry and server have one digest; the run has commit, data and verdict."""
    tags = {"gate": "passed", "gate_reason": "good", "dataset_digest": "d" * 64}
    pipeline.run.tag(tags)
    version = pipeline.promote(1)
    found = explain(pipeline.deployment, version)
    assert found.digest == found.stamped_digest == found.registered_digest == found.served_digest
    assert (found.run_id, found.gate, found.gate_reason) == (pipeline.run.id, "passed", "good")
    assert (found.dataset_digest, found.state, found.labels) == ("d" * 64, "AVAILABLE", ("stable",))
    assert [entry.split()[1] for entry in found.journal] == ["publish", "promote"]
    assert found.problems == ()
    assert ("digest", found.digest) in lines(found)


@pytest.mark.parametrize("is_changed", [False, True])
def test_the_commit_of_the_recipe_is_told(is_changed: bool, offline: Pipeline, tmp_path: Path) -> None:
    """With a word about changes that are in no commit; in MLflow every tag has the prefix once."""
    recipe = tmp_path / "recipe" / "churn.py"
    recipe.parent.mkdir()
    recipe.write_text("RECIPE = None\n")
    who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    for arguments in (["init", "-q"], ["add", "churn.py"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(recipe.parent), *arguments], check=True)
    if is_changed:
        recipe.write_text("RECIPE = 1\n")
    offline.run.tag(source_tags(recipe))
    found = explain(offline.deployment, offline.promote(1))
    (told,) = (value for name, value in lines(found) if name == "git commit")
    assert told == f"{found.git_commit}{' (with changes that were not committed)' if is_changed else ''}"
    tags = offline.registry._client.get_run(offline.run.id).data.tags
    assert not [name for name in tags if name.count("hotswap.") > 1]


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001", "variables/new"])
def test_one_changed_byte_is_found(name: str, pipeline: Pipeline) -> None:
    """A flipped byte, and a file that was added, differ from stamp, registry and server; retired or not."""
    version = pipeline.promote(1)
    retire(pipeline.deployment, version, force="to be examined")
    path = pipeline.repository.retired_path(pipeline.model, version) / name
    content = bytearray(path.read_bytes() if path.exists() else b"x")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = explain(pipeline.deployment, version)
    assert found.state == "RETIRED"
    assert [("stamp" in problem, "registry" in problem) for problem in found.problems] == [(True, False), (False, True)]


def test_a_version_that_came_by_hand_has_no_origin(offline: Pipeline) -> None:
    """Nothing is known of it but its files, and that is reported as a problem."""
    offline.sources(offline.repository.base_path(offline.model), 9)
    found = explain(offline.deployment, 9)
    assert "was never published" in found.problems[0]
    assert dict(lines(found))["run"] == "not known"


def test_a_version_that_is_not_there_is_reported(offline: Pipeline) -> None:
    """The message names the versions there are."""
    version = offline.promote(1)
    with pytest.raises(VersionNotFound, match=f"there are: {version}"):
        explain(offline.deployment, version + 1)


def test_a_lost_registry_is_reported(offline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With another database, the version is reported as unknown there, and its stamp is still shown."""
    version = offline.promote(1)
    before = os.environ["MLFLOW_TRACKING_URI"]
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path_factory.mktemp('empty')}/mlflow.db"
    try:
        found = explain(offline.deployment, version)
    finally:
        os.environ["MLFLOW_TRACKING_URI"] = before
    assert found.problems == ("the registry does not know this version",)
    assert (found.stamped_digest, found.run_id) == (found.digest, offline.run.id)
