"""
Serves the models that a configuration lists: finds the version for a request, and moves from one list to the next.

Source: tensorflow_serving/model_servers/server_core.cc, tensorflow_serving/model_servers/get_model_status_impl.cc
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from serving.lifecycle.manager import Manager, RetryPolicy
from serving.lifecycle.model_configs import check_entries, check_logging, check_platforms, listed_entries, watched
from serving.lifecycle.source import Source
from serving.lifecycle.version_loader import ObserveWarmup, VersionLoader
from serving.protocol.errors import (
    GraphError,
    InvalidRequest,
    LabelNotAssignable,
    ServableNotFound,
    ServerUnavailable,
)
from serving.protocol.model_spec import ModelSpec
from serving.protocol.version_status import VersionStatus
from serving.repository.identity import Identity, served_repository
from serving.repository.model_config import ModelEntry
from serving.repository.version_policy import Specific
from serving.runtime.servable import Servable, ServableHandle
from serving.settings import ServerSettings

log = logging.getLogger(__name__)

_Labels = dict[str, dict[str, int]]
"""By model, the version of each label."""


class ServedModels:
    """The models of one server with their labels, for one event loop."""

    def __init__(self, settings: ServerSettings, observe_warmup: ObserveWarmup) -> None:
        self.changes = 0
        """as long as this stays the same, `find` gives the same"""
        self._settings = settings
        self._loader = VersionLoader(settings, observe_warmup)
        retry = RetryPolicy(settings.max_num_load_retries, settings.load_retry_interval_micros / 1e6)
        self._manager = Manager(self._load, retry, self._loader.threads, self._note_change)
        self._source = Source(self._manager.set_aspired, settings.file_system_poll_wait_seconds)
        self._first_entries: Sequence[ModelEntry] = ()
        self._entries: dict[str, ModelEntry] = {}
        self._labels: _Labels | None = None
        self._opening: set[str] = set()
        """the models that answer nothing yet, or are still loading what is to answer by default"""
        self._waiting_reload: asyncio.Task[None] | None = None

    async def start(self, entries: Sequence[ModelEntry], has_config: bool = True) -> None:
        """
        Serve these models and return once each has a version available, or has failed where the settings allow it.

        Args:
            has_config: False for a config without a ``model_config_list``: there are no labels until the first reload.
        """
        check_entries(entries, {})
        await asyncio.to_thread(self._loader.choose_threads, entries)
        if has_config:
            self._set_labels(self._checked_labels(entries))
        check_platforms(entries)
        await self._apply(entries)
        self._source.start()
        failed = await self._manager.wait_available(self._entries, self._default_version)
        if failed and self._settings.require_all_models:
            raise GraphError(grpc.StatusCode.UNKNOWN, _not_available("servable(s)", failed))
        if failed:
            log.error("serving without some models: %s", _not_available("servable(s)", failed))
        check_logging(entries, self._settings.request_log_directory is not None)

    async def close(self) -> None:
        """Stop looking for versions, let the last requests end, free every model."""
        await self._source.stop()
        await self._manager.close()
        self._loader.close()

    def find(self, spec: ModelSpec) -> Servable:
        """
        The servable that a request asks for; it may be freed in the next turn of the event loop.

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

    def names(self) -> list[str]:
        """Every model that the server serves or has served."""
        return self._manager.models()

    def servable(self, model: str, version: int) -> Servable | None:
        """This version, if it is available."""
        return self._manager.servable(model, version)

    def servables(self) -> list[Servable]:
        """Every version that is available now."""
        return self._manager.servables()

    def labels(self, model: str) -> Mapping[str, int]:
        """The version labels of a model."""
        return dict((self._labels or {}).get(model, {}))

    def base_paths(self) -> dict[str, Path]:
        """Where the versions of each model that is served are looked for."""
        return {name: watched(entry).base_path for name, entry in self._entries.items()}

    def sampling_rate(self, model: str) -> float:
        """Which share of the requests to a model is to be logged."""
        entry = self._entries.get(model)
        logging = None if entry is None else entry.logging
        return self._settings.request_log_sampling_rate if logging is None else logging.sampling_rate

    def problem(self, model: str) -> str:
        """Why no new version of a model can be seen; empty where all is well."""
        return self._source.problem(model)

    async def repository(self) -> Identity | None:
        """The repository that is served; None when that is not one."""
        return await asyncio.to_thread(served_repository, self._settings, self._first_entries)

    def ready(self) -> bool:
        """Whether every model that should have a version has one available."""
        return all(map(self._is_ready, self._entries.values()))

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
        await self.reload_entries(listed_entries(config))

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

    async def adopt(self, config: Any) -> None:
        """
        Like `reload`, without waiting for new models: what does not load stays away, and the rest is served.

        Raises:
            ServingError: As `reload` does, but for models that do not become available.
        """
        entries = listed_entries(config)
        self._set_labels(self._checked(entries))
        await self._apply(entries)

    def _checked(self, entries: Sequence[ModelEntry]) -> _Labels:
        """The labels of a list of models, once all of it has been checked; a reload that still waits gives way."""
        check_entries(entries, self._entries)
        labels = self._checked_labels(entries)
        check_platforms(entries)
        check_logging(entries, self._settings.request_log_directory is not None)
        if self._waiting_reload is not None:
            self._waiting_reload.cancel()
        return labels

    def _checked_labels(self, entries: Sequence[ModelEntry]) -> _Labels:
        """
        The label map of a config.

        A version must be available to get a label. With the setting for it, a label that is new or stays where it is
        may point at any version; one that moves never may.
        """
        for entry in entries:
            before = self.labels(entry.name)
            for label, version in entry.labels.items():
                moves = label in before and before[label] != version
                lenient = self._settings.allow_version_labels_for_unavailable_models and not moves
                if not lenient and self._manager.servable(entry.name, version) is None:
                    raise LabelNotAssignable(
                        f"Request to assign label to version {version} of model {entry.name}, "
                        "which is not currently available for inference"
                    )
        return {entry.name: dict(entry.labels) for entry in entries}

    async def _transition(self, entries: Sequence[ModelEntry], labels: _Labels) -> None:
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
        await self._source.set_models({entry.name: watched(entry) for entry in entries})

    def _load(self, model: str, version: int, path: Path) -> Servable:
        return self._loader.load(model, version, path, replaced=self._manager.latest(model))

    def _is_ready(self, entry: ModelEntry) -> bool:
        """A model whose versions were all removed is ready too, but for one whose config names the versions."""
        if self._by_default(entry.name) is not None:
            return True
        return self._manager.is_emptied(entry.name) and not isinstance(entry.policy, Specific)

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
        label = self._settings.default_version_label
        return (self._labels or {}).get(model, {}).get(label) if label else None

    def _labelled_version(self, model: str, label: str) -> int:
        if self._labels is None:
            raise ServerUnavailable(f"Model labels does not init yet.{label}")
        version = self._labels.get(model, {}).get(label)
        if version is None:
            raise InvalidRequest(f"Unrecognized servable version label: {label}")
        return version

    def _set_labels(self, labels: _Labels | None) -> None:
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


def _not_available(what: str, failed: Mapping[str, VersionStatus]) -> str:
    parts = "".join(
        f"{{{{name: {name} version: {status.version}}} due to error: {status.code.name}: {status.message}}}, "
        for name, status in sorted(failed.items())
    )
    return f"{len(failed)} {what} did not become available: {{{parts}}}"
