"""What does MLflow remember: runs, registered versions, aliases?"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import DatasetInput, InputTag, LifecycleStage, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from numpy.typing import NDArray

from flows.gate.gates import GateDecision
from flows.registry import mlflow_access
from flows.registry.mlflow_errors import RegistryError
from flows.training.dataset import Dataset, Rows
from flows.training.evaluation import Evaluation
from serving.protocol.redaction import redacted
from serving.repository.saved_model_files import digest
from serving.repository.stamp import GoldenRows

if TYPE_CHECKING:
    from flows.gate.sandbox import SandboxDecision

log = logging.getLogger(__name__)

_SAVED_MODEL = "saved_model"
_NAMESPACE = "hotswap"
FLOW_RUN = "prefect_flow_run_id"
_REMOVED, _REMOVED_WHY = "removed", "removed_why"
"""the tag of a run that says which flow run it is of"""


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

    def start_run(self, model: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Open a run in the experiment called `model`, and return its id."""
        with self._translated():
            run = self._client.create_run(
                self._experiment(model), run_name=name, tags={**_git_tags(), **_prefixed(tags)}
            )
            self._client.log_batch(
                run.info.run_id, params=[Param(key, redacted(str(value))) for key, value in params.items()]
            )
        return str(run.info.run_id)

    def log_dataset(self, run_id: str, model: str, dataset: Dataset) -> None:
        """Record both splits through MLflow's dataset API, and the digest of the whole."""
        with self._translated():
            inputs = [_dataset_input(model, dataset, rows, context) for rows, context in _splits(dataset)]
            self._client.log_inputs(run_id, inputs)
            self._client.set_tag(run_id, f"{_NAMESPACE}.dataset_digest", dataset.digest)

    def log_history(self, run_id: str, history: Mapping[str, Sequence[float]]) -> None:
        """Record metrics by epoch, the first epoch as step 1."""
        now = _now_milliseconds()
        metrics = [
            Metric(f"train_{name}", value, now, step)
            for name, values in history.items()
            for step, value in enumerate(values, start=1)
        ]
        with self._translated():
            for start in range(0, len(metrics), 1000):  # the most that one call takes
                self._client.log_batch(run_id, metrics=metrics[start : start + 1000])

    def log_evaluation(self, run_id: str, evaluation: Evaluation, class_names: Sequence[str]) -> None:
        """Record the held-out metrics, overall and by class, and the confusion matrix as a picture and as numbers."""
        by_class = {
            f"test_{name}_{each}": float(value)
            for name, values in (("recall", evaluation.recall), ("precision", evaluation.precision))
            for each, value in zip(class_names, values, strict=True)
        }
        with self._translated():
            self.log_metrics(run_id, {**evaluation.metrics, **by_class})
            self._client.log_figure(
                run_id, _confusion_figure(evaluation.confusion, class_names), "confusion_matrix.png"
            )
            matrix = {"classes": list(class_names), "rows_are": "true class", "matrix": evaluation.confusion.tolist()}
            self._client.log_dict(run_id, matrix, "confusion_matrix.json")

    def log_decision(self, run_id: str, decision: GateDecision) -> None:
        """Record the gate's report, as Markdown, as JSON and as tags."""
        with self._translated():
            self._client.log_text(run_id, redacted(decision.markdown), "gate.md")
            self._client.log_text(run_id, redacted(decision.json), "gate.json")
            self.tag_run(
                run_id, {"gate": decision.verdict.value, "gate_reason": decision.reason, **_by_check(decision)}
            )
            if (found := decision.comparison) is not None:
                bounds = {"": found.difference, "_lower": found.lower, "_upper": found.upper}
                self.log_metrics(run_id, {f"accuracy_difference{name}": value for name, value in bounds.items()})

    def log_sandbox(self, run_id: str, decision: SandboxDecision) -> None:
        """Record the sandbox's report, as Markdown, as JSON and as tags."""
        with self._translated():
            self._client.log_text(run_id, redacted(decision.markdown), "sandbox.md")
            self._client.log_text(run_id, redacted(decision.json), "sandbox.json")
            self.tag_run(run_id, {"sandbox": decision.verdict.value, "sandbox_reason": decision.reason[:500]})

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        now = _now_milliseconds()
        with self._translated():
            self._client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        with self._translated():
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in _prefixed(tags).items()])

    def end_run(self, run_id: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        with self._translated():
            self._client.set_terminated(run_id, status)

    def end_run_of(self, model: str, flow_run_id: str, status: str) -> None:
        """Close the run of the training that was this Prefect flow run, whatever status it has now."""
        with self._translated():
            if (experiment := self._client.get_experiment_by_name(model)) is None:
                return
            asked = f"tags.`{_NAMESPACE}.{FLOW_RUN}` = '{flow_run_id}'"
            for run in self._client.search_runs([experiment.experiment_id], asked):
                self.end_run(run.info.run_id, status)

    def log_model(self, run_id: str, saved_model: Path, golden: GoldenRows) -> str:
        """
        Keep `saved_model` in the run as a model that ``mlflow.pyfunc`` can load, and return its address.

        Args:
            run_id: An open run.
            saved_model: The exported SavedModel, a directory called ``saved_model``; its files are copied as they are.
            golden: A few rows, and what the model answers to them.
        """
        # Unnamed columns of doubles take lists, arrays and data frames; a tensor would take float32 arrays only.
        columns = Schema([ColSpec(DataType.double)] * golden.inputs.shape[1])
        answers = Schema([TensorSpec(golden.outputs.dtype, (-1, golden.outputs.shape[1]))])
        requirements = [f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", "numpy", "tensorflow")]
        with self._translated(), mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={_SAVED_MODEL: str(saved_model)},
                signature=ModelSignature(inputs=columns, outputs=answers),
                input_example=golden.inputs.astype(float),
                pip_requirements=requirements,
            )
        return str(info.model_uri)

    def download_model(self, run_id: str, copy_to: Path) -> Path:
        """
        A copy of the SavedModel that `log_model` kept in a run.

        Raises:
            RegistryError: There is no such run, or it keeps none.
        """
        with self._translated():
            try:
                outputs = self._client.get_run(run_id).outputs
            except MlflowException as exc:
                if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise RegistryError(f"MLflow at {self.uri} has no run {run_id}: its page lists them") from exc
                raise
            kept = outputs.model_outputs if outputs else []
            if not kept:
                raise RegistryError(f"Run {run_id} keeps no model: name another, or give --saved-model DIRECTORY")
            location = self._client.get_logged_model(kept[-1].model_id).artifact_location
            copy_to.mkdir(parents=True)
            source = f"{location}/artifacts/{_SAVED_MODEL}"
            return Path(mlflow.artifacts.download_artifacts(source, dst_path=str(copy_to)))

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
            self._ensure_registered_model(model)
            self.mark_present(model)
            created: list[int] = []
            # MLflow counts from its own highest version, which is lower after versions or models were deleted in it.
            while not created or created[-1] <= above:
                created.append(self._create_version(run_id, model, model_uri))
            for skipped in created[:-1]:
                self._client.delete_model_version(model, str(skipped))
            source = self._client.get_model_version_download_uri(model, str(created[-1]))
            path = Path(
                mlflow.artifacts.download_artifacts(f"{source}/artifacts/{_SAVED_MODEL}", dst_path=str(copy_to))
            )
            content = digest(path)
            self.tag_version(model, created[-1], {"digest": content, "promotion": "registered"})
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
            self._ensure_registered_model(model)
            created = 0
            while created < version:
                created = self._create_version(run_id, model, model_uri)
                if created != version:
                    self._client.delete_model_version(model, str(created))
            if created == version:
                self.tag_version(model, version, {"digest": content, "promotion": "registered again"})
        return created == version

    def tag_version(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        with self._translated():
            for key, value in _prefixed(tags).items():
                self._client.set_model_version_tag(model, str(version), key, value)

    def mark_removed(self, model: str, when: str, why: str) -> None:
        """Take all aliases of a registered model away, and say why; its versions stay. An unknown one stays unknown."""
        for alias in self.aliases(model):
            self.set_alias(model, alias, None)
        with self._translated():
            if self._client.search_registered_models(f"name = '{model}'", max_results=1):
                for key, value in _prefixed({_REMOVED: when, _REMOVED_WHY: why}).items():
                    self._client.set_registered_model_tag(model, key, value)

    def mark_present(self, model: str) -> None:
        """Take back what `mark_removed` has said of a registered model."""
        with self._translated():
            found = self._client.search_registered_models(f"name = '{model}'", max_results=1)
            said = [key for each in found for key in _prefixed({_REMOVED: "", _REMOVED_WHY: ""}) if key in each.tags]
            for key in said:
                self._client.delete_registered_model_tag(model, key)

    def versions(self, model: str) -> list[int]:
        """The registered versions, lowest first."""
        return sorted(self.runs(model))

    def runs(self, model: str) -> dict[int, str]:
        """The run of each registered version."""
        with self._translated():
            found = self._client.search_model_versions(f"name = '{model}'", max_results=10_000)
        return {int(entry.version): entry.run_id or "" for entry in found}

    def version_tags(self, model: str, version: int) -> dict[str, str]:
        """What is kept with a registered version."""
        with self._translated():
            return dict(self._client.get_model_version(model, str(version)).tags)

    def run_tags(self, run_id: str) -> dict[str, str]:
        with self._translated():
            return dict(self._client.get_run(run_id).data.tags)

    def aliases(self, model: str) -> dict[str, int]:
        """The version that each alias of `model` points to; empty where MLflow does not know `model`."""
        with self._translated():
            try:
                found = self._client.get_registered_model(model).aliases
            except MlflowException as exc:
                if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
        return {alias: int(version) for alias, version in found.items()}

    def set_alias(self, model: str, alias: str, version: int | None) -> None:
        """Point `alias` to `version`, or take it away."""
        with self._translated():
            if version is None:
                self._client.delete_registered_model_alias(model, alias)
            else:
                self._client.set_registered_model_alias(model, alias, str(version))

    def _create_version(self, run_id: str, model: str, model_uri: str) -> int:
        # A tracking server refuses a logged model as the source without its id.
        model_id = model_uri.removeprefix("models:/")
        entry = self._client.create_model_version(model, source=model_uri, run_id=run_id, model_id=model_id)
        return int(entry.version)

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

    def _ensure_registered_model(self, model: str) -> None:
        try:
            self._client.create_registered_model(model)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _translated(self) -> AbstractContextManager[None]:
        return mlflow_access.translated(self._address, "used")


def _prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    return {key if key.startswith("mlflow.") else f"{_NAMESPACE}.{key}": redacted(value) for key, value in tags.items()}


def _by_check(decision: GateDecision) -> dict[str, str]:
    def key(check: str) -> str:
        return "gate." + re.sub(r"[^A-Za-z0-9_.-]+", "_", check)  # a feature's name may hold what MLflow refuses

    return {key(each.check): f"{each.verdict}: {each.measured}, required {each.required}" for each in decision.checks}


def _now_milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _splits(dataset: Dataset) -> tuple[tuple[Rows, str], tuple[Rows, str]]:
    return (dataset.train, "training"), (dataset.test, "testing")


def _dataset_input(model: str, dataset: Dataset, rows: Rows, context: str) -> DatasetInput:
    # MLflow allows 36 characters of digest.
    recorded = mlflow.data.from_numpy(
        rows.examples, targets=rows.classes, name=f"{model}-{context}", digest=dataset.digest[:32]
    )
    return DatasetInput(recorded._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])


def _confusion_figure(confusion: NDArray[np.int64], class_names: Sequence[str]) -> Any:
    # The figure class alone: pyplot would look for a screen and keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 0.7 * len(class_names),) * 2, layout="constrained")
    axes = figure.subplots()
    axes.imshow(confusion, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true", title="held-out rows")
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names)
    for (row, column), count in np.ndenumerate(confusion):
        shade = "white" if count > confusion.max() / 2 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=shade)
    return figure


def _git_tags() -> dict[str, str]:
    """The commit that the code is at and whether it was changed since; empty outside a git clone."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, f"{_NAMESPACE}.git_dirty": json.dumps(bool(changed))}
