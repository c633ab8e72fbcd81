"""The registered models of MLflow: their versions, tags and aliases, and the runs that made them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from flows.registry import mlflow_access
from flows.registry.mlflow_errors import RegistryError
from flows.registry.pyfunc_arguments import SAVED_MODEL
from flows.registry.run import Run
from flows.registry.statement import STATEMENT, Statement
from flows.registry.tags import FLOW_RUN, LOST_RUN, NAMESPACE, PARENT_RUN, prefixed
from serving.protocol.redaction import redacted
from serving.repository.saved_model_files import digest

log = logging.getLogger(__name__)

_REMOVED, _REMOVED_WHY = "removed", "removed_why"
"""the tags of a registered model that was removed"""


@dataclass(frozen=True, slots=True)
class Registered:
    """A version as MLflow holds it; `saved_model` is a copy of its files."""

    version: int
    saved_model: Path
    digest: str


class Registry:
    """MLflow at ``MLFLOW_TRACKING_URI``."""

    def __init__(self, artifact_root: Path) -> None:
        """
        `artifact_root` is where files go when the tracking address is a local database, not a server.

        Raises:
            RegistryError: There is no such address, or its local database cannot be written.
        """
        mlflow_access.check_writable()
        self._address = mlflow_access.tracking_address()
        self.uri = redacted(self._address)
        self._artifact_root = artifact_root.absolute()
        self._client = mlflow_access.connect()

    def check(self) -> None:
        """
        Connect, and make the tables of a new database.

        Raises:
            RegistryError: MLflow cannot be reached.
        """
        with self._translated():
            self._client.search_experiments(max_results=1, view_type=ViewType.ALL)

    def start_run(self, model: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> Run:
        """Open a run in the experiment called `model`."""
        with self._translated():
            created = self._client.create_run(self._experiment(model), run_name=name, tags=prefixed(tags))
        run = self.run(created.info.run_id)
        run.log_params(params)
        return run

    def run(self, run_id: str) -> Run:
        """The run of this id, which need not exist."""
        return Run(self._client, self._address, str(run_id))

    def run_or_another(self, run_id: str, model: str) -> Run:
        """The run of this id, or where MLflow has lost it an ended one in its place, whose tag names the lost one."""
        with self._translated():
            try:
                return self.run(self._client.get_run(run_id).info.run_id)
            except MlflowException as exc:
                if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        another = self.start_run(model, "registered again", {}, {LOST_RUN: run_id})
        another.end("FINISHED")
        return another

    def end_run_of(self, model: str, flow_run_id: str, status: str) -> None:
        """Close the run of the training that was this Prefect flow run, and those of its candidates that are open."""
        with self._translated():
            if (experiment := self._client.get_experiment_by_name(model)) is None:
                return
            asked = f"tags.`{NAMESPACE}.{FLOW_RUN}` = '{flow_run_id}'"
            for run in self._client.search_runs([experiment.experiment_id], asked):
                if PARENT_RUN not in run.data.tags or run.info.status == "RUNNING":
                    self.run(run.info.run_id).end(status)

    def register(self, run_id: str, model: str, model_uri: str, above: int, copy_to: Path) -> Registered:
        """
        Make the model at `model_uri` the next version of `model`.

        Args:
            run_id: The run that made it.
            model: The registered model, created where it is missing.
            model_uri: As `log_model` returned it.
            above: The highest version number ever seen elsewhere; MLflow's number will be higher.
            copy_to: A directory for a copy of what MLflow now holds.
        """
        with self._translated():
            self._ensure_present(model)
            logged = self._client.get_logged_model(_model_id(model_uri))
            source = f"{logged.artifact_location}/artifacts/{SAVED_MODEL}"
            path = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(copy_to)))
            content = digest(path)
            created: list[int] = []
            # MLflow counts from its own highest version, which is lower after versions or models were deleted in it.
            while not created or created[-1] <= above:
                created.append(self._create_version(run_id, model, model_uri, "registered", content))
            for skipped in created[:-1]:
                self._client.delete_model_version(model, str(skipped))
            self._show_version(logged, model, created[-1])
        log.info("version registered model=%s version=%d run=%s", model, created[-1], run_id)
        return Registered(created[-1], path, content)

    def register_again(self, run_id: str, model: str, version: int, model_uri: str, content: str) -> bool:
        """
        Give a version that was lost its number back, as after its registered model was deleted and created again.

        Args:
            run_id: The run that made it.
            model: The registered model, created where it is missing.
            version: The number that was lost.
            model_uri: As `log_model` returned it.
            content: The digest of the files.

        Returns:
            False where MLflow does not give that number any more.
        """
        with self._translated():
            self._ensure_present(model)
            created = 0
            while created < version:
                created = self._create_version(run_id, model, model_uri, "registered again", content)
                if created != version:
                    self._client.delete_model_version(model, str(created))
            if created == version:
                self._show_version(self._client.get_logged_model(_model_id(model_uri)), model, version)
        return created == version

    def describe(self, model: str, version: int, description: str) -> None:
        """Say in words what a version is."""
        with self._translated():
            self._client.update_model_version(model, str(version), redacted(description))

    def tag_version(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        with self._translated():
            for key, value in prefixed(tags).items():
                self._client.set_model_version_tag(model, str(version), key, value)

    def state(self, model: str, statement: Statement) -> None:
        """Tell the hosts of a fleet what they must have of a registered model."""
        with self._translated():
            self._client.set_registered_model_tag(model, STATEMENT, statement.encode())
            # A tag alone does not count as a change, and hosts look at what has changed lately.
            description = self._client.get_registered_model(model).description
            self._client.update_registered_model(model, description)

    def mark_removed(self, model: str, when: str, why: str) -> None:
        """Take all aliases of a registered model away, and say why; its versions stay. An unknown one stays unknown."""
        with self._translated():
            if (found := self._found(model)) is None:
                return
            for alias in found.aliases:
                self._client.delete_registered_model_alias(model, alias)
            for key, value in prefixed({_REMOVED: when, _REMOVED_WHY: why}).items():
                self._client.set_registered_model_tag(model, key, value)

    def mark_present(self, model: str) -> None:
        """Take back what `mark_removed` has said of a registered model."""
        with self._translated():
            if (found := self._found(model)) is not None:
                self._unmark(model, found.tags)

    def versions(self, model: str) -> list[int]:
        """The registered versions, lowest first."""
        return sorted(self.runs(model))

    def runs(self, model: str) -> dict[int, str]:
        """The run of each registered version."""
        with self._translated():
            found = self._client.search_model_versions(f"name = '{model}'", max_results=10_000)
        return {int(entry.version): entry.run_id or "" for entry in found}

    def aliases(self, model: str) -> dict[str, int]:
        """The version that each alias of `model` points to; empty where MLflow does not know `model`."""
        with self._translated():
            found = self._found(model)
        return {} if found is None else {alias: int(version) for alias, version in found.aliases.items()}

    def set_alias(self, model: str, alias: str, version: int | None) -> None:
        """Point `alias` to `version`, or take it away."""
        with self._translated():
            if version is None:
                self._client.delete_registered_model_alias(model, alias)
            else:
                self._client.set_registered_model_alias(model, alias, str(version))

    def _create_version(self, run_id: str, model: str, model_uri: str, promotion: str, content: str) -> int:
        # A tracking server refuses a logged model as the source without its id.
        model_id, tags = _model_id(model_uri), prefixed({"promotion": promotion, "digest": content})
        entry = self._client.create_model_version(model, source=model_uri, run_id=run_id, tags=tags, model_id=model_id)
        return int(entry.version)

    def _show_version(self, logged: Any, model: str, version: int) -> None:
        """Let the page of a logged model name its registered version, which a separate registry does not see to."""
        known = json.loads(logged.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
        if (named := {"name": model, "version": version}) not in known:
            self._client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*known, named])})

    def _experiment(self, model: str) -> str:
        if (found := self._client.get_experiment_by_name(model)) is not None:
            if found.lifecycle_stage != LifecycleStage.ACTIVE:
                raise RegistryError(
                    f"The experiment {model!r} of MLflow at {self.uri} is deleted: bring it back with "
                    f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
                )
            return str(found.experiment_id)
        location = None if self._address.startswith("http") else (self._artifact_root / model).as_uri()
        try:
            return str(self._client.create_experiment(model, artifact_location=location))
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
            return str(self._client.get_experiment_by_name(model).experiment_id)

    def _ensure_present(self, model: str) -> None:
        """Make a registered model where there is none; one that was removed is so no longer."""
        if (found := self._found(model)) is not None:
            self._unmark(model, found.tags)
            return
        try:
            self._client.create_registered_model(model)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise

    def _found(self, model: str) -> Any:
        """What MLflow has as the registered model of this name, if anything."""
        try:
            return self._client.get_registered_model(model)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _unmark(self, model: str, tags: Mapping[str, str]) -> None:
        for key in prefixed({_REMOVED: "", _REMOVED_WHY: ""}).keys() & tags.keys():
            self._client.delete_registered_model_tag(model, key)

    def _translated(self) -> AbstractContextManager[None]:
        return mlflow_access.translated(self._address, "used")


def _model_id(model_uri: str) -> str:
    return model_uri.removeprefix("models:/")
