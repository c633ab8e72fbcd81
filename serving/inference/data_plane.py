"""
What can a client ask, whatever the protocol?

Predict, status and reload, with TensorFlow Serving's rules and error texts; the edges only decode and encode.

Source: tensorflow_serving/model_servers/server_core.cc, tensorflow_serving/model_servers/get_model_status_impl.cc
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from serving.inference.batching import Done, Merger, Result
from serving.inference.merging import Merging, merging_of
from serving.inference.monitoring import Metrics, read_metrics_path
from serving.lifecycle.manager import Manager, RetryPolicy, State, VersionStatus
from serving.lifecycle.source import Source, Watched, list_versions
from serving.protocol.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    GraphError,
    InvalidRequest,
    LabelNotAssignable,
    ServableNotFound,
    ServerUnavailable,
    ServingError,
)
from serving.protocol.model_spec import ModelSpec
from serving.protocol.tensors import Array
from serving.repository.identity import Identity, served_repository
from serving.repository.model_config import ModelEntry
from serving.repository.version_policy import All, Latest, Specific, VersionPolicy
from serving.runtime.background import Background, at_once
from serving.runtime.batching_limits import BatchingLimits, read_batching_limits
from serving.runtime.saved_model import LoadOptions, load
from serving.runtime.servable import Call, Servable, ServableHandle
from serving.runtime.signature import Signature
from serving.runtime.warmup import warm_up
from serving.settings import NEVER, ServerSettings

__all__ = ["DataPlane", "State", "VersionStatus"]

MAX_SMALL_MODEL_BYTES = 2**20
PREDICT_METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")

log = logging.getLogger(__name__)


class DataPlane:
    """All that the server does, for one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        cpus = os.cpu_count() or 1
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.changes = 0
        """as long as this stays the same, `find` gives the same"""
        self.draining = False
        monitoring = settings.monitoring_config_file
        self.metrics_path = None if monitoring is None else read_metrics_path(monitoring)
        self._limits = _batching_limits(settings)
        self._load_options = LoadOptions(
            tags=frozenset(settings.saved_model_tags.split(",")),
            intra_op_threads=settings.tensorflow_intra_op_parallelism,
            inter_op_threads=settings.tensorflow_inter_op_parallelism,
        )
        retry = RetryPolicy(settings.max_num_load_retries, settings.load_retry_interval_micros / 1e6)
        self._background = Background(settings.num_load_threads or cpus)
        self._manager = Manager(self._load, retry, settings.num_load_threads or cpus, self._note_change)
        self._source = Source(self._manager.set_aspired, settings.file_system_poll_wait_seconds)
        self._merger = Merger(self._loop, settings.grpc_max_threads, self.metrics, settings.merge_requests != NEVER)
        self.id = uuid.uuid4().hex
        """of this server while it runs; both protocols tell it"""
        self._first_entries: Sequence[ModelEntry] = ()
        self._entries: dict[str, ModelEntry] = {}
        self._labels: dict[str, dict[str, int]] | None = None
        self._opening: set[str] = set()
        """the models that answer nothing yet, or are still loading what is to answer by default"""
        self._waiting_reload: asyncio.Task[None] | None = None

    async def start(self, entries: Sequence[ModelEntry], has_config: bool = True) -> None:
        """
        Serve these models and return once each has a version available, or has failed where the settings allow it.

        Args:
            has_config: False for a config without a ``model_config_list``: there are no labels until the first reload.
        """
        _validate(entries, {})
        if not self._load_options.intra_op_threads and await asyncio.to_thread(_are_small, entries):
            # To hand a part of a tiny operation to another thread takes many times as long as the operation.
            self._load_options = replace(self._load_options, intra_op_threads=1)
        if has_config:
            self._set_labels(self._checked_labels(entries))
        _check_platforms(entries)
        await self._apply(entries)
        self._source.start()
        failed = await self._manager.wait_available(self._entries, self._default_version)
        if failed and self.settings.require_all_models:
            raise GraphError(grpc.StatusCode.UNKNOWN, _not_available("servable(s)", failed))
        if failed:
            log.error("serving without some models: %s", _not_available("servable(s)", failed))
        _refuse_logging(entries)

    async def close(self) -> None:
        """Stop looking for versions, let the last requests end, free every model."""
        await self._source.stop()
        await self._manager.close()
        self._background.close()
        self._merger.close()

    def find(self, spec: ModelSpec) -> Servable:
        """
        The servable that a request asks for; it may be freed once the event loop goes on.

        Raises:
            ServableNotFound: The model or version is not available.
            InvalidRequest: There is no such label.
            ServerUnavailable: The server has no labels yet.
        """
        version = self._labelled_version(spec.name, spec.label) if spec.label is not None else spec.version
        servable = self._by_default(spec.name) if version is None else self._manager.servable(spec.name, version)
        if servable is None:
            wanted = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            raise ServableNotFound(f"Servable not found for request: {wanted}")
        return servable

    def acquire(self, spec: ModelSpec) -> ServableHandle:
        """Like `find`; used in ``with``, the servable stays loaded until the block ends."""
        return ServableHandle(self.find(spec))

    def bind(
        self,
        servable: Servable,
        signature: Signature,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] = (),
        timeout_seconds: float | None = None,
    ) -> tuple[Call, list[Array]]:
        """
        Match a request with a signature.

        Args:
            inputs: One array per input alias; strings are object arrays of bytes.
            outputs: The output aliases wanted; none means all.
            timeout_seconds: When TensorFlow ends a run that takes longer for some values than for others.

        Raises:
            InvalidRequest: A name or type differs from the signature, or the batch breaks the limits of the settings.
        """
        call, arrays = servable.bind(signature, inputs, outputs, round(1000 * (timeout_seconds or 0)))
        if servable.limits and call.is_declared:
            servable.limits.check_inputs(arrays)
        call.check_types(arrays)
        return call, arrays

    def submit(
        self,
        call: Call,
        arrays: list[Array],
        done: Done,
        api: str = "Predict",
        is_short: bool = False,
        caller: object = None,
    ) -> None:
        """
        Run what `bind` gave, together with what else arrives in this turn of the loop.

        Args:
            done: Called with the arrays in the order of ``call.outputs``, or with what went wrong; must not raise.
            api: Which kind of inference the metrics count this as.
            is_short: Whether it has been found out that the call `is_short` for these arrays.
            caller: Who waits for the answer before it asks again; None if that is not known.
        """
        limits = call.servable.limits
        if limits is None or not call.is_declared:
            self._merger.submit(call, arrays, done, api, is_short, caller)
            return
        padded = limits.padded(arrays) if arrays else arrays
        if arrays:
            self.metrics.observe_batch(len(arrays[0]), len(padded[0]))

        def check(result: Result) -> None:
            done(result if isinstance(result, Exception) else limits.checked_outputs(arrays, padded, result))

        self._merger.submit(call, padded, check, api, is_short and padded is arrays, caller)

    def submitted(self, call: Call, arrays: list[Array], api: str = "Predict") -> asyncio.Future[list[Array]]:
        """`submit`, and what will be its result."""
        future: asyncio.Future[list[Array]] = self._loop.create_future()
        self.submit(call, arrays, partial(_resolve, future), api)
        return future

    async def run(
        self,
        servable: Servable,
        signature: Signature,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] = (),
        timeout_seconds: float | None = None,
        api: str = "Predict",
    ) -> dict[str, Array]:
        """
        `bind`, `submit`, and wait for the result; the servable is kept until then.

        Raises:
            InvalidRequest: A name or type differs from the signature.
            GraphError: TensorFlow refused to run the graph.
            DeadlineExceeded: It did not end within `timeout_seconds`.
        """
        call, arrays = self.bind(servable, signature, inputs, outputs, timeout_seconds)
        future = self.submitted(call, arrays, api)
        if timeout_seconds is None or call.is_short(arrays):
            results = await future
        else:
            try:
                results = await asyncio.wait_for(future, timeout_seconds)
            except TimeoutError as exc:
                raise DeadlineExceeded("Timed out waiting for notification") from exc
        return dict(zip(call.outputs, results, strict=True))

    def check_predict_method(self, signature: Signature) -> None:
        """
        Where the settings ask for it, refuse to predict with a signature made for something else.

        Raises:
            ServingError: Its method name is none of TensorFlow Serving's.
        """
        if self.settings.enable_signature_method_name_check and signature.method_name not in PREDICT_METHODS:
            raise ServingError(
                "Expected prediction signature method_name to be one of "
                f"{{{', '.join(PREDICT_METHODS)}}}. Was: {signature.method_name}"
            )

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """
        The states of the versions of a model, highest first; a label is ignored, as in TensorFlow Serving.

        Raises:
            ServableNotFound: The server has never seen this model or version.
        """
        statuses = self._manager.statuses(spec.name)
        if spec.version is not None:
            statuses = [status for status in statuses if status.version == spec.version]
            if not statuses:
                raise ServableNotFound(f"Could not find version {spec.version} of model {spec.name}")
        if not statuses:
            raise ServableNotFound(f"Could not find any versions of model {spec.name}")
        return statuses

    def models(self) -> list[str]:
        """Every model that the server serves or has served."""
        return self._manager.models()

    async def repository(self) -> Identity | None:
        """The repository that is served; None when that is not one."""
        return await asyncio.to_thread(served_repository, self.settings, self._first_entries)

    def labels(self, model: str) -> Mapping[str, int]:
        """The version labels of a model."""
        return dict((self._labels or {}).get(model, {}))

    def base_paths(self) -> dict[str, Path]:
        """Where the versions of each model that is served are looked for."""
        return {name: _watched(entry).base_path for name, entry in self._entries.items()}

    def problem(self, model: str) -> str:
        """Why no new version of a model can be seen; empty where all is well."""
        return self._source.problem(model)

    def servable(self, model: str, version: int) -> Servable | None:
        """This version, if it is available."""
        return self._manager.servable(model, version)

    def ready(self) -> bool:
        """Does every model that should have a version have one available, and is the server not about to stop?"""
        return not self.draining and all(map(self._is_ready, self._entries.values()))

    def metrics_page(self) -> str:
        """The Prometheus page."""
        servables = self._manager.servables()
        usages = {(each.model, each.version): each.usage for each in servables}
        return self.metrics.render(usages, {(each.model, each.version): self.merging(each) for each in servables})

    def merging(self, servable: Servable) -> dict[str, Merging]:
        """Which signatures have requests that arrive together run as one."""
        return merging_of(servable, self.settings.merge_requests)

    async def reload(self, config: Any) -> None:
        """
        Serve what a ``ModelServerConfig`` says instead; a reload that fails leaves everything as it was.

        Returns once every new model has a version available. A caller that gives up does not undo the reload; the next
        reload ends its waiting.

        Raises:
            InvalidRequest: The config is not valid.
            FailedPrecondition: The config has no list of models.
            LabelNotAssignable: A label's version is not available.
            GraphError: A new model did not become available.
        """
        await self.reload_entries(_listed(config))

    async def adopt(self, config: Any) -> None:
        """
        Like `reload`, without waiting for new models: what does not load stays away, and the rest is served.

        Raises:
            ServingError: As `reload` does, but for models that do not become available.
        """
        entries = _listed(config)
        self._set_labels(self._checked(entries))
        await self._apply(entries)

    async def reload_entries(self, entries: Sequence[ModelEntry]) -> None:
        """Like `reload`, for a config that has been read already."""
        labels = self._checked(entries)
        task = self._waiting_reload = asyncio.create_task(self._transition(entries, labels))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ServerUnavailable("A later reload took the place of this one") from None
            raise

    def _checked(self, entries: Sequence[ModelEntry]) -> dict[str, dict[str, int]]:
        """The labels that entries ask for, once they have been found good; a reload that still waits gives way."""
        _validate(entries, self._entries)
        labels = self._checked_labels(entries)
        _check_platforms(entries)
        _refuse_logging(entries)
        if self._waiting_reload is not None:
            self._waiting_reload.cancel()
        return labels

    async def _transition(self, entries: Sequence[ModelEntry], labels: dict[str, dict[str, int]]) -> None:
        before, labels_before = list(self._entries.values()), self._labels
        new = [entry.name for entry in entries if entry.name not in self._entries]
        self._set_labels(labels)
        await self._apply(entries)
        failed = await self._manager.wait_available(new, self._default_version)
        if failed:
            self._set_labels(labels_before)
            await self._apply(before)
            raise GraphError(grpc.StatusCode.UNKNOWN, _not_available("model(s)", failed))
        log.info("models reloaded models=%s", ",".join(sorted(self._entries)))

    async def _apply(self, entries: Sequence[ModelEntry]) -> None:
        self._first_entries = self._first_entries or entries
        self._opening |= {entry.name for entry in entries if entry.name not in self._entries}
        self._entries = {entry.name: entry for entry in entries}
        await self._source.set_models({entry.name: _watched(entry) for entry in entries})

    def _is_ready(self, entry: ModelEntry) -> bool:
        """A model whose versions were all removed is ready too, but for one whose config names the versions."""
        if self._by_default(entry.name) is not None:
            return True
        return self._manager.is_emptied(entry.name) and not isinstance(entry.policy, Specific)

    def _load(self, model: str, version: int, path: Path) -> Servable:
        if not path.is_dir():
            raise GraphError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Error while attempting to reserve resources to load servable "
                f"{{name: {model} version: {version}}}: {path}; Not a directory",
            )
        replaced = self._manager.latest(model)
        limits = self._limits_of(path)
        servable = load(model, version, path, self._load_options, self._background if replaced else at_once)
        servable.limits = limits
        if self.settings.enable_model_warmup:
            started = time.perf_counter()
            try:
                records = warm_up(servable, self.settings.num_request_iterations_for_warmup)
            except GraphError:
                servable.close()
                raise
            if records:
                self.metrics.observe_warmup(str(path), "OK", records, time.perf_counter() - started)
        if replaced:
            servable.prepare(replaced.prepared)
        servable.native = at_once
        return servable

    def _limits_of(self, path: Path) -> BatchingLimits | None:
        """Where every version brings its own, one that brings none has no limits."""
        if not (self._limits and self.settings.enable_per_model_batching_parameters):
            return self._limits
        file = path / "batching_params.pbtxt"
        try:
            return read_batching_limits(file) if file.exists() else None
        except InvalidRequest as exc:
            raise GraphError(exc.code, exc.message) from exc

    def _by_default(self, model: str) -> Servable | None:
        """
        What answers requests with neither version nor label.

        That is the highest available version, or the one with the default label where that is available. A model that
        has just come waits for it: while its versions are loaded side by side, the highest may be ready first.
        """
        version = self._default_version(model)
        servable = None if version is None else self._manager.servable(model, version)
        if servable is not None or (version is not None and model in self._opening):
            return servable
        return self._manager.latest(model)

    def _default_version(self, model: str) -> int | None:
        label = self.settings.default_version_label
        return (self._labels or {}).get(model, {}).get(label) if label else None

    def _labelled_version(self, model: str, label: str) -> int:
        if self._labels is None:
            raise ServerUnavailable(f"Model labels does not init yet.{label}")
        version = self._labels.get(model, {}).get(label)
        if version is None:
            raise InvalidRequest(f"Unrecognized servable version label: {label}")
        return version

    def _set_labels(self, labels: dict[str, dict[str, int]] | None) -> None:
        self._labels = labels
        self._note_change()

    def _note_change(self) -> None:
        self.changes += 1
        if self._opening:
            self._opening = set(filter(self._is_opening, self._opening))

    def _is_opening(self, model: str) -> bool:
        if self._manager.latest(model) is None:
            return True
        version = self._default_version(model)
        return version is not None and self._manager.is_loading(model, version)

    def _checked_labels(self, entries: Sequence[ModelEntry]) -> dict[str, dict[str, int]]:
        """
        The label map of a config.

        A version must be available to get a label. With the setting for it, a label that is new or stays where it is
        may point at any version; one that moves never may.
        """
        for entry in entries:
            before = (self._labels or {}).get(entry.name, {})
            for label, version in entry.labels.items():
                moves = label in before and before[label] != version
                lenient = self.settings.allow_version_labels_for_unavailable_models and not moves
                if not lenient and self._manager.servable(entry.name, version) is None:
                    raise LabelNotAssignable(
                        f"Request to assign label to version {version} of model {entry.name}, "
                        "which is not currently available for inference"
                    )
        return {entry.name: dict(entry.labels) for entry in entries}


def _resolve(future: asyncio.Future[list[Array]], result: Result) -> None:
    if future.done():  # given up by its caller
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _listed(config: Any) -> list[ModelEntry]:
    if config.WhichOneof("config") != "model_config_list":
        raise FailedPrecondition(
            "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another."
        )
    return entries_of(config)


def entries_of(config: Any) -> list[ModelEntry]:
    """The models of a ``ModelServerConfig``."""
    return [
        ModelEntry(
            name=each.name,
            base_path=each.base_path,
            policy=_policy(each.model_version_policy),
            labels=dict(each.version_labels),
            platform=each.model_platform,
            model_type=each.model_type,
            logging=each.HasField("logging_config"),
        )
        for each in config.model_config_list.config
    ]


def _are_small(entries: Sequence[ModelEntry]) -> bool:
    """Is every version that is wanted now so small that its operations are tiny?"""
    for entry in entries:
        try:
            for version in list_versions(_watched(entry)).aspired.values():
                sizes = (file.stat().st_size for file in version.path.rglob("*"))
                if sum(sizes) > MAX_SMALL_MODEL_BYTES:
                    return False
        except OSError:  # the source tells of it
            continue
    return True


def _batching_limits(settings: ServerSettings) -> BatchingLimits | None:
    if settings.batching_parameters_file is not None:
        return read_batching_limits(settings.batching_parameters_file)
    return BatchingLimits() if settings.enable_batching else None


def _watched(entry: ModelEntry) -> Watched:
    return Watched(Path(entry.base_path.removeprefix("file://")), entry.policy)


def _policy(policy: Any) -> VersionPolicy:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(tuple(policy.specific.versions))
    return Latest(policy.latest.num_versions or 1)


def _validate(entries: Sequence[ModelEntry], current: Mapping[str, ModelEntry]) -> None:
    names = Counter(entry.name for entry in entries)
    for entry in entries:
        if names[entry.name] > 1:
            raise InvalidRequest(f"Illegal to list model {entry.name} multiple times in config list")
    for entry in entries:
        if not _watched(entry).base_path.is_absolute():
            raise InvalidRequest(
                f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
            )
    for entry in entries:
        if entry.name in current and _platform(entry) != _platform(current[entry.name]):
            raise InvalidRequest(
                f"Illegal to change a model's platform. For model {entry.name} platform was "
                f"{_platform(current[entry.name])} and new platform requested is {_platform(entry)}"
            )


def _check_platforms(entries: Sequence[ModelEntry]) -> None:
    for entry in entries:
        if _platform(entry) != "tensorflow":
            raise InvalidRequest(f"Model {entry.name} requests unsupported platform {_platform(entry)}")


def _platform(entry: ModelEntry) -> str:
    if bool(entry.platform) == bool(entry.model_type):
        which = "both" if entry.platform else "neither"
        joined = "and" if entry.platform else "nor"
        raise InvalidRequest(
            f"Illegal setting {which} ModelServerConfig::model_type (deprecated) {joined} "
            f"ModelServerConfig::model_platform, model name is {entry.name}"
        )
    return entry.platform or {1: "tensorflow", 2: "other"}[entry.model_type]


def _refuse_logging(entries: Sequence[ModelEntry]) -> None:
    if any(entry.logging for entry in entries):
        raise InvalidRequest("No request-logger-creator provided.")


def _not_available(what: str, failed: Mapping[str, VersionStatus]) -> str:
    parts = "".join(
        f"{{{{name: {name} version: {status.version}}} due to error: {status.code.name}: {status.message}}}, "
        for name, status in sorted(failed.items())
    )
    return f"{len(failed)} {what} did not become available: {{{parts}}}"
