"""What the tests of flows share: one MLflow database a session, and a models repository with a server a test."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.journal import Journal
from flows.promotion import promotion
from flows.promotion.labelling import STABLE
from flows.reconciliation.drift import Finding
from flows.registry.mlflow_registry import Registered, Registry
from flows.reports import doctor
from flows.reports.status import VersionRow, status
from flows.settings import Settings, apply_environment
from serving.repository.store import Repository

ROWS = np.array([[1, 2, 3, 4], [0, 0, 0, 1]], np.float32)
BROKEN = -1
_NUMBERS = itertools.count(1)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that runs in the tests' process sets the logs up for itself."""
    loggers = [logging.getLogger(room) for room in ("flows", "serving", "clients")]
    before = [(logger.level, logger.handlers) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with an MLflow database, which the environment points to while the tests run."""
    before = dict(os.environ)
    home = tmp_path_factory.mktemp("home")
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "HOTSWAP_HOME", "HOTSWAP_MODELS_REPO"):
        os.environ.pop(name, None)
    apply_environment(Settings(home=home, models_repo=home / "unused"))
    Registry(home / "artifacts").check()
    yield home
    os.environ.clear()
    os.environ.update(before)


def go_live(
    settings: Settings,
    registry: Registry,
    model: str,
    registered: Registered,
    stamp: Mapping[str, Any],
    label: str = STABLE,
) -> None:
    """Publish, verify and label a registered version, or undo it; the model's lock is held."""
    version = registered.version
    with promotion.undone_on_failure(settings, registry, model, version):
        promotion.publish(settings, model, version, registered.saved_model, stamp)
        promotion.verify(settings, model, version)
        promotion.promote(settings, registry, model, version, stamp["run_id"], registered.digest, label=label)


def make_stable(settings: Settings, registry: Registry, model: str, version: int) -> None:
    """Verify a published version and make it the stable one; the model's lock is held."""
    with promotion.kept_on_failure(settings, model, version, "a run"):
        promotion.promotable(settings, model, version)
        promotion.verify(settings, model, version)
        promotion.promote_published(settings, registry, model, version, "a run")


@dataclass
class Pipeline:
    """One model on its way, without the training: the parts that `train_and_promote` puts together."""

    settings: Settings
    registry: Registry
    model: str
    sources: Any
    directory: Path
    run_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.run_id = self.registry.start_run(self.model, "run", {}, {})

    def begin_anew(self) -> None:
        """Go on with another model, of which nothing is known yet."""
        self.model = f"tiny{os.getpid()}_{next(_NUMBERS)}"
        self.run_id = self.registry.start_run(self.model, "run", {}, {})

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
        directory = self.directory / f"source-{next(_NUMBERS)}"
        source = self.sources(directory, 1 if kind == BROKEN else kind, "saved_model")
        if kind == BROKEN:
            (source / "variables" / "variables.index").write_bytes(b"no index")
        uri = self.registry.log_model(self.run_id, source, ROWS, self.answers(kind))
        above = promotion.highest_version_seen(self.settings, self.model)
        return self.registry.register(
            self.run_id, self.model, uri, above, self.directory / f"registered-{next(_NUMBERS)}"
        )

    def stamp(self, registered: Registered, kind: int) -> dict[str, Any]:
        return {
            "version": registered.version,
            "digest": registered.digest,
            "run_id": self.run_id,
            "metrics": {"test_accuracy": 0.5},
            "golden": promotion.golden_rows(ROWS, self.answers(kind)),
        }

    def promote(self, kind: int = 1, expected_kind: int | None = None, label: str = STABLE) -> int:
        """Register, publish, verify and label; the golden rows are those of `expected_kind`."""
        with self.repository.lock(self.model):
            promotion.tidy(self.settings, self.registry, self.model)
            registered = self.register(kind)
            stamp = self.stamp(registered, kind if expected_kind is None else expected_kind)
            go_live(self.settings, self.registry, self.model, registered, stamp, label)
        return registered.version

    def make_stable(self, version: int) -> None:
        """What ``hotswap promote --version`` does once the gate has passed."""
        with self.repository.lock(self.model):
            promotion.tidy(self.settings, self.registry, self.model)
            make_stable(self.settings, self.registry, self.model, version)

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


@pytest.fixture
def offline(mlflow_home: Path, tiny_model: Any, tmp_path: Path) -> Pipeline:
    """A model of its own name, with nobody listening on the ports of the settings."""
    settings = Settings(home=mlflow_home, models_repo=tmp_path / "models", rest_port=1, grpc_port=2)
    registry = Registry(mlflow_home / "artifacts")
    return Pipeline(settings, registry, f"tiny{os.getpid()}_{next(_NUMBERS)}", tiny_model, tmp_path)


@pytest.fixture
def replicas(offline: Pipeline, model_server: Any, tmp_path: Path) -> tuple[Pipeline, list[Any]]:
    """The same with two running servers, both in `HOTSWAP_SERVING_ENDPOINTS`; they begin without any model."""
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    servers = [
        model_server(model_config_file=config, allow_version_labels_for_unavailable_models=True, max_num_load_retries=0)
        for _ in range(2)
    ]
    offline.settings = with_endpoints(offline.settings, *((each.rest_port, each.grpc_port) for each in servers))
    return offline, servers


def with_endpoints(settings: Settings, *ports: tuple[int, int]) -> Settings:
    """The settings with these REST and gRPC ports as endpoints."""
    text = ", ".join(f"http://127.0.0.1:{rest} 127.0.0.1:{grpc}" for rest, grpc in ports)
    return settings.model_copy(update={"serving_endpoints": text, "server_timeout_seconds": 10.0})


@pytest.fixture
def pipeline(offline: Pipeline, model_server: Any, tmp_path: Path) -> Pipeline:
    """The same with a running server, as that of ``hotswap up``, which begins without any model."""
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    server = model_server(
        model_config_file=config,
        allow_version_labels_for_unavailable_models=True,
        max_num_load_retries=0,
        default_version_label=STABLE,
    )
    offline.settings = offline.settings.model_copy(
        update={"rest_port": server.rest_port, "grpc_port": server.grpc_port, "server_timeout_seconds": 10.0}
    )
    return offline
