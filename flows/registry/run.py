"""
One MLflow run: everything that a training or a promotion records while it runs.

A run is opened by `Registry.start_run`, and bound to its id, so that a step needs nothing else to record something.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from flows.data.rows import Rows
from flows.gate.figures import confusion_figure
from flows.gate.gates import GateDecision
from flows.machine.workspaces import temporary_directory
from flows.registry import mlflow_access
from flows.registry.live_metrics import EpochMetrics, system_metrics
from flows.registry.mlflow_errors import RegistryError
from flows.registry.pyfunc_arguments import SAVED_MODEL, arguments
from flows.registry.run_checkpoints import RunCheckpoints
from flows.registry.tags import NAMESPACE, prefixed
from flows.tasks import Classification, Evaluation
from flows.training.dataset import Dataset
from flows.training.explanation import Explanation
from serving.protocol.redaction import redacted
from serving.repository.stamp import GoldenRows

if TYPE_CHECKING:
    from flows.gate.sandbox import SandboxDecision

"""the artifact of a logged model that is its SavedModel"""
_MAX_METRICS_PER_CALL = 1000


class Run:
    """A run of MLflow at `address`."""

    def __init__(self, client: Any, address: str, run_id: str) -> None:
        self.id = run_id
        self._client = client
        self._address = address
        self.checkpoints = RunCheckpoints(client, address, run_id)

    def pages(self, mlflow_page: str) -> tuple[str, str]:
        """The addresses of this run and of all runs of its experiment, on the page of MLflow at `mlflow_page`."""
        with self._translated():
            experiment = self._client.get_run(self.id).info.experiment_id
        # Without the last part MLflow opens a view of traces, of which a training has none.
        runs = f"{mlflow_page.rstrip('/')}/#/experiments/{experiment}/runs"
        return f"{runs}/{self.id}", runs

    def log_params(self, params: Mapping[str, Any]) -> None:
        with self._translated():
            entities = [Param(key, redacted(str(value))) for key, value in params.items()]
            self._client.log_batch(self.id, params=entities)

    def log_dataset(self, model: str, dataset: Dataset) -> None:
        """Record both splits through MLflow's dataset API, and the digest of the whole."""
        splits = ((dataset.train, "training"), (dataset.test, "testing"))
        with self._translated():
            inputs = [_dataset_input(model, dataset, rows, context) for rows, context in splits]
            self._client.log_inputs(self.id, inputs)
            self._client.set_tag(self.id, f"{NAMESPACE}.dataset_digest", dataset.digest)

    @contextmanager
    def training_metrics(self) -> Iterator[EpochMetrics]:
        """Record epochs, and the use of the machine, while the block trains."""
        with system_metrics(self.id, self._address), self.epoch_metrics() as epochs:
            yield epochs

    @contextmanager
    def epoch_metrics(self) -> Iterator[EpochMetrics]:
        """Record epochs while the block trains."""
        epochs = EpochMetrics(self._log_metric_entities)
        try:
            yield epochs
        finally:
            epochs.flush()

    def log_model_summary(self, facts: Mapping[str, str], summary: str) -> None:
        """Record what the model is made of, as parameters and as Keras' table."""
        self.log_params(facts)
        with self._translated():
            self._client.log_text(self.id, summary, "model_summary.txt")

    def log_source(self, source: Path) -> None:
        """Keep the file that the recipe is in."""
        with self._translated():
            self._client.log_artifact(self.id, str(source), "recipe")

    def log_evaluation(self, evaluation: Evaluation, baselines: Mapping[str, Evaluation]) -> None:
        """Record the held-out metrics, of each class and of the baselines too, and the confusion matrix of classes."""
        found = {**evaluation.recorded, **{f"test_{name}": value for name, value in evaluation.parts.items()}}
        for name, each in baselines.items():
            found |= {f"baseline_{name}_{metric}": value for metric, value in each.metrics.items()}
        self.log_metrics({_allowed(name): value for name, value in found.items()})
        if isinstance(task := evaluation.task, Classification):
            confusion = task.confusion(evaluation.targets, evaluation.answers)
            matrix = {"classes": list(task.class_names), "rows_are": "true class", "matrix": confusion.tolist()}
            with self._translated():
                self._client.log_figure(self.id, confusion_figure(evaluation), "confusion_matrix.png")
                self._client.log_dict(self.id, matrix, "confusion_matrix.json")

    def log_picture(self, name: str, png: bytes) -> None:
        """Keep a picture as a file of the run."""
        with self._translated(), temporary_directory() as directory:
            path = directory / f"{name}.png"
            path.write_bytes(png)
            self._client.log_artifact(self.id, str(path))

    def log_page(self, name: str, text: str) -> None:
        """Keep a text as a file of the run."""
        with self._translated():
            self._client.log_text(self.id, redacted(text), name)

    def log_explanation(self, explanation: Explanation) -> None:
        """Record which inputs matter and the worst answers, as tables and as Markdown."""
        importances = [asdict(each) for each in explanation.importances]
        with self._translated():
            self._client.log_dict(self.id, {"metric": explanation.metric, "inputs": importances}, "importance.json")
            self._client.log_dict(self.id, {"rows": list(explanation.worst)}, "worst_rows.json")
            self._client.log_text(self.id, redacted(explanation.markdown), "columns.md")

    def log_decision(self, decision: GateDecision) -> None:
        """Record the gate's report, as Markdown, as JSON and as tags."""
        self._log_report("gate", decision)
        self.tag({"gate": decision.verdict.value, "gate_reason": decision.reason, **_by_check(decision)})
        if (found := decision.comparison) is not None:
            bounds = {"": found.difference, "_lower": found.lower, "_upper": found.upper}
            self.log_metrics({f"{decision.score_name}_difference{name}": value for name, value in bounds.items()})

    def log_sandbox(self, decision: SandboxDecision) -> None:
        """Record the sandbox's report, as Markdown, as JSON and as tags."""
        self._log_report("sandbox", decision)
        if decision.disagreement is not None:
            self.log_metrics({"sandbox_disagreement": decision.disagreement})
        self.tag({"sandbox": decision.verdict.value, "sandbox_reason": decision.reason[:500]})

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        now = _now_milliseconds()
        self._log_metric_entities([Metric(name, value, now, 0) for name, value in metrics.items()])

    def _log_metric_entities(self, metrics: list[Metric]) -> None:
        with self._translated():
            for start in range(0, len(metrics), _MAX_METRICS_PER_CALL):
                self._client.log_batch(self.id, metrics=metrics[start : start + _MAX_METRICS_PER_CALL])

    def tag(self, tags: Mapping[str, str]) -> None:
        with self._translated():
            self._client.log_batch(self.id, tags=[RunTag(key, value) for key, value in prefixed(tags).items()])

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        with self._translated():
            self._client.set_terminated(self.id, status)

    def log_model(self, saved_model: Path, golden: GoldenRows) -> str:
        """
        Keep `saved_model` as a model that ``mlflow.pyfunc`` can load, and return its address.

        Args:
            saved_model: The exported SavedModel, a directory called ``saved_model``; its files are copied as they are.
            golden: A few rows, and what the model answers to them.
        """
        kept = arguments(saved_model, golden)
        with self._translated(), mlflow.start_run(run_id=self.id):
            return str(mlflow.pyfunc.log_model(name="model", **kept).model_uri)

    def download_model(self, copy_to: Path) -> Path:
        """
        A copy of the SavedModel that `log_model` kept.

        Raises:
            RegistryError: There is no such run, or it keeps none.
        """
        with self._translated():
            kept = self._logged_models()
            if not kept:
                raise RegistryError(f"Run {self.id} keeps no model: name another, or give --saved-model DIRECTORY")
            location = self._client.get_logged_model(kept[-1].model_id).artifact_location
            copy_to.mkdir(parents=True)
            source = f"{location}/artifacts/{SAVED_MODEL}"
            return Path(mlflow.artifacts.download_artifacts(source, dst_path=str(copy_to)))

    def _logged_models(self) -> list[Any]:
        try:
            outputs = self._client.get_run(self.id).outputs
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            where = redacted(self._address)
            raise RegistryError(f"MLflow at {where} has no run {self.id}: its page lists them") from exc
        return list(outputs.model_outputs) if outputs else []

    def _log_report(self, name: str, decision: GateDecision | SandboxDecision) -> None:
        with self._translated():
            self._client.log_text(self.id, redacted(decision.markdown), f"{name}.md")
            self._client.log_text(self.id, redacted(decision.json), f"{name}.json")

    def _translated(self) -> AbstractContextManager[None]:
        return mlflow_access.translated(self._address, "used")


def _by_check(decision: GateDecision) -> dict[str, str]:
    return {
        _allowed(f"gate.{each.check}"): f"{each.verdict}: {each.measured}, required {each.required}"
        for each in decision.checks
    }


def _allowed(name: str) -> str:
    """A name without what MLflow refuses, as the name of a class or a column may hold that."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def _dataset_input(model: str, dataset: Dataset, rows: Rows, context: str) -> DatasetInput:
    # MLflow allows 36 characters of digest.
    recorded = mlflow.data.from_numpy(
        rows.examples, targets=rows.targets, name=f"{model}-{context}", digest=dataset.digest[:32]
    )
    return DatasetInput(DatasetEntity.from_dictionary(recorded.to_dict()), [InputTag("mlflow.data.context", context)])


def _now_milliseconds() -> int:
    return time.time_ns() // 1_000_000
