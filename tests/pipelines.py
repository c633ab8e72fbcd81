"""Pipeline: one model with its repository, registry and server, without the training; and what all sides say of it."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clients import GrpcClient, RestClient
from flows.journal import Journal
from flows.promotion import promotion, verification
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from flows.promotion.recovery import recover
from flows.promotion.undo import kept_on_failure, undone_on_failure
from flows.reconciliation.findings import Finding
from flows.reconciliation.repair import Repair, repair
from flows.registry.mlflow_registry import Registered, Registry
from flows.registry.run import Run
from flows.reports import doctor
from flows.reports.status import VersionRow, status
from flows.settings import Settings
from serving.repository.saved_model_files import check_complete, digest
from serving.repository.stamp import GoldenRows, Stamp
from serving.repository.store import Repository

ROWS = np.array([[1, 2, 3, 4], [0, 0, 0, 1]], np.float32)
BROKEN = -1
NUMBERS = itertools.count(1)
_VERSIONS_EACH = 50
"""more are not listed in the tag of a model in MLflow, which is of limited length"""
_KEPT: dict[tuple[str, Any, int, int], str] = {}
"""Addresses of models in MLflow, which takes a while to keep one: several versions may be of the same."""


def go_live(deployment: Deployment, registered: Registered, stamp: Stamp, label: str = STABLE) -> None:
    """Publish, verify and label a registered version, or undo it; the model's lock is held."""
    version = registered.version
    with undone_on_failure(deployment, version):
        promotion.publish(deployment, version, registered.saved_model, stamp)
        verification.verify(deployment, version)
        promotion.assign_label(deployment, version, label)


def make_stable(deployment: Deployment, version: int) -> None:
    """Verify a published version and make it the stable one; the model's lock is held."""
    with kept_on_failure(deployment, version, "a run"):
        promotion.check_promotable(deployment, version)
        verification.verify(deployment, version)
        promotion.make(deployment, version, STABLE, "a run")


@dataclass
class Pipeline:
    """One model on its way, without the training: the parts that `train_and_promote` puts together."""

    settings: Settings
    registry: Registry
    model: str
    sources: Any
    directory: Path
    run: Run = field(init=False)
    kept: dict[tuple[str, Any, int, int], str] = field(default_factory=lambda: _KEPT)

    def __post_init__(self) -> None:
        self.run = self.registry.start_run(self.model, "run", {}, {})

    def begin_anew(self) -> None:
        """Go on with another model, of which nothing is known yet."""
        self.model = f"tiny{os.getpid()}_{next(NUMBERS)}"
        self.run = self.registry.start_run(self.model, "run", {}, {})

    @property
    def deployment(self) -> Deployment:
        """The model as a command has it, with the settings and the registry of now."""
        return Deployment(self.settings, self.model)

    @property
    def repository(self) -> Repository:
        return Repository(self.settings.models_repo)

    @property
    def journal(self) -> Journal:
        return Journal(self.settings.models_repo, self.model)

    def answers(self, kind: int) -> Any:
        """What the tiny model of this kind answers to `ROWS`."""
        return ROWS.sum(axis=1, keepdims=True) * np.array([[1, 10, 100]], np.float32) + np.float32(kind)

    def register(self, kind: int) -> Registered:
        """Register the tiny model of this kind; `BROKEN` has a graph and variables that do not fit together."""
        key = (self.registry.uri, self.sources, kind, next(NUMBERS) // _VERSIONS_EACH)
        if key not in self.kept:
            self.kept[key] = self._keep(kind)
        above = self.deployment.highest_version_seen()
        return self.registry.register(
            self.run.id, self.model, self.kept[key], above, self.directory / f"registered-{next(NUMBERS)}"
        )

    def _keep(self, kind: int) -> str:
        """The address of the model in MLflow."""
        directory = self.directory / f"source-{next(NUMBERS)}"
        source = self.sources(directory, 1 if kind == BROKEN else kind, "saved_model")
        if kind == BROKEN:
            (source / "variables" / "variables.index").write_bytes(b"no index")
        return self.run.log_model(source, self.golden(kind))

    def golden(self, kind: int) -> GoldenRows:
        return GoldenRows({"input": ROWS}, {"output": self.answers(kind)})

    def stamp(self, registered: Registered, kind: int) -> Stamp:
        return Stamp(
            version=registered.version,
            digest=registered.digest,
            run_id=self.run.id,
            metrics={"test_accuracy": 0.5},
            golden=self.golden(kind),
        )

    def promote(self, kind: int = 1, expected_kind: int | None = None, label: str = STABLE) -> int:
        """Register, publish, verify and label; the golden rows are those of `expected_kind`."""
        deployment = self.deployment
        with deployment.lock():
            recover(deployment)
            registered = self.register(kind)
            stamp = self.stamp(registered, kind if expected_kind is None else expected_kind)
            go_live(deployment, registered, stamp, label)
        return registered.version

    def make_stable(self, version: int) -> None:
        """What ``hotswap promote --version`` does once the gate has passed."""
        deployment = self.deployment
        with deployment.lock():
            recover(deployment)
            make_stable(deployment, version)

    def be_impatient(self) -> None:
        """Wait for servers for a second only, as where one of them is dead."""
        self.settings = self.settings.model_copy(update={"server_timeout_seconds": 1.0})

    def row(self, version: int) -> VersionRow:
        """What `status` says of a version."""
        return next(row for row in status(self.settings, self.model) if row.version == version)

    def live(self) -> tuple[dict[str, str], dict[str, int], tuple[int, ...]]:
        """Everything that a failed promotion must leave as it was: states, aliases, versions on disk."""
        rows = status(self.settings, self.model)
        published = tuple(self.repository.versions(self.model))
        labels = {label: str(row.version) for row in rows for label in row.labels}
        return labels, self.registry.aliases(self.model), published


def examine_without_server(settings: Settings) -> list[Finding]:
    """What is wrong besides that no server runs on the ports of the settings."""
    findings = doctor.examine(settings)
    others = [finding for finding in findings if finding.subject != doctor.NO_SERVER]
    assert len(others) == len(findings) - 1
    return others


def with_endpoints(settings: Settings, *ports: tuple[int, int]) -> Settings:
    """The settings with these REST and gRPC ports as endpoints."""
    text = ", ".join(f"http://127.0.0.1:{rest} 127.0.0.1:{grpc}" for rest, grpc in ports)
    return settings.model_copy(update={"serving_endpoints": text, "server_timeout_seconds": 10.0})


def answered(pipeline: Pipeline, **how: Any) -> set[int | None]:
    """The versions that answer over both protocols."""
    with (
        RestClient(pipeline.settings.rest_url) as rest,
        GrpcClient(pipeline.settings.grpc_target) as grpc,
    ):
        return {client.predict(pipeline.model, ROWS, **how).version for client in (rest, grpc)}


def change_golden_answer(pipeline: Pipeline, version: int) -> None:
    """Make a version answer otherwise than it was published to."""
    stamp = pipeline.repository.path(pipeline.model, version) / "assets.extra" / "hotswap.json"
    changed = json.loads(stamp.read_text())
    changed["golden"]["outputs"]["output"]["values"][0][0] += 1
    stamp.write_text(json.dumps(changed))


def states(pipeline: Pipeline) -> list[dict[int, str]]:
    """What every server has of the model."""
    with pipeline.deployment.servers.running() as servers:
        assert servers is not None
        return servers.each(lambda server: server.states(pipeline.model))


def served(pipeline: Pipeline) -> set[int]:
    """The versions that any server has available."""
    return {version for found in states(pipeline) for version, state in found.items() if state == "AVAILABLE"}


def assert_gone(pipeline: Pipeline) -> None:
    """Nobody has the model, and nobody misses it."""
    assert served(pipeline) == set()
    assert pipeline.model not in pipeline.repository.models()
    assert pipeline.model not in pipeline.repository.read_config()
    assert pipeline.registry.aliases(pipeline.model) == {}
    assert repair(pipeline.deployment) == Repair(pipeline.model, (), ())
    assert doctor.examine(pipeline.settings) == []
    assert status(pipeline.settings) == []
    assert pipeline.repository.models() == []


def assert_whole(pipeline: Pipeline) -> None:
    """What the server polls holds complete versions only, and nobody has the lock."""
    repository, model = pipeline.repository, pipeline.model
    versions = repository.versions(model)
    assert sorted(path.name for path in repository.base_path(model).iterdir()) == sorted(map(str, versions))
    for version in versions:
        check_complete(repository.path(model, version))
        assert digest(repository.path(model, version)) == repository.stamp(model, version).digest
    with repository.lock(model, timeout_seconds=0):
        pass
