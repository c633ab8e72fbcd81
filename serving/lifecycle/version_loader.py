"""
Loads a version from its directory: graph and variables, batching limits, warm-up.

It runs in the threads of the `Manager`, while other versions answer requests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import grpc

from serving.lifecycle.model_configs import watched
from serving.lifecycle.source import list_versions
from serving.protocol.errors import GraphError, InvalidRequest, UntrustedVersion
from serving.repository.model_config import ModelEntry
from serving.repository.signatures import check_version, trusted_keys
from serving.runtime.background import NICENESS, NICENESS_OF_SMALL, Background, Native, at_once
from serving.runtime.batching_limits import BatchingLimits, read_batching_limits
from serving.runtime.saved_model import LoadOptions, load
from serving.runtime.servable import Servable
from serving.runtime.warmup import warm_up
from serving.settings import ServerSettings

MAX_SMALL_MODEL_BYTES = 2**20

ObserveWarmup = Callable[[str, str, int, float], None]
"""Given path, status name, number of records and seconds."""


class VersionLoader:
    """Loads versions as the settings of the server ask for it."""

    def __init__(self, settings: ServerSettings, observe_warmup: ObserveWarmup) -> None:
        self.threads = settings.num_load_threads or os.cpu_count() or 1
        self._settings = settings
        self._observe_warmup = observe_warmup
        self._limits = _batching_limits(settings)
        self._options = LoadOptions(
            tags=frozenset(settings.saved_model_tags.split(",")),
            intra_op_threads=settings.tensorflow_intra_op_parallelism,
            inter_op_threads=settings.tensorflow_inter_op_parallelism,
        )
        self._background = Background(self.threads, NICENESS)
        self._background_of_small = Background(self.threads, NICENESS_OF_SMALL)
        if settings.trusted_keys_file is not None:
            trusted_keys(settings.trusted_keys_file)  # a server that cannot check anything does not start

    def choose_threads(self, entries: Sequence[ModelEntry]) -> None:
        """
        Let each operation use one thread where nothing else is set and all models are small.

        To hand a part of a tiny operation to another thread takes many times as long as the operation.
        """
        if not self._options.intra_op_threads and _are_small(entries):
            self._options = replace(self._options, intra_op_threads=1)

    def close(self) -> None:
        """End the threads that prepare versions in the background."""
        self._background.close()
        self._background_of_small.close()

    def load(self, model: str, version: int, path: Path, replaced: Servable | None) -> Servable:
        """
        A version that is ready to answer; slowly, in the background, where it replaces one that answers meanwhile.

        Raises:
            GraphError: It cannot be loaded, or its warm-up fails.
        """
        if not path.is_dir():
            raise GraphError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Error while attempting to reserve resources to load servable "
                f"{{name: {model} version: {version}}}: {path}; Not a directory",
            )
        self._check_trusted(model, version, path)
        limits = self._limits_of(path)
        servable = load(model, version, path, self._options, self._beside(path) if replaced else at_once)
        servable.limits = limits
        if self._settings.enable_model_warmup:
            self._warm_up(servable)
        if replaced:
            servable.prepare(replaced.prepared)
        servable.session.native = at_once
        return servable

    def _beside(self, path: Path) -> Native:
        """How to prepare this version while another one answers."""
        try:
            return self._background_of_small if _is_small(path) else self._background
        except OSError:  # the load reports it
            return self._background

    def _check_trusted(self, model: str, version: int, path: Path) -> None:
        if (keys := self._settings.trusted_keys_file) is None:
            return
        try:
            check_version(path, model, version, keys)
        except (UntrustedVersion, InvalidRequest) as exc:
            raise GraphError(grpc.StatusCode.PERMISSION_DENIED, exc.message) from exc

    def _warm_up(self, servable: Servable) -> None:
        started = time.perf_counter()
        try:
            records = warm_up(servable, self._settings.num_request_iterations_for_warmup)
        except GraphError:
            servable.close()
            raise
        if records:
            self._observe_warmup(str(servable.path), "OK", records, time.perf_counter() - started)

    def _limits_of(self, path: Path) -> BatchingLimits | None:
        """The server's limits, or the version's own where each brings its own; one that brings none has none."""
        if not (self._limits and self._settings.enable_per_model_batching_parameters):
            return self._limits
        file = path / "batching_params.pbtxt"
        try:
            return read_batching_limits(file) if file.exists() else None
        except InvalidRequest as exc:
            raise GraphError(exc.code, exc.message) from exc


def _batching_limits(settings: ServerSettings) -> BatchingLimits | None:
    if settings.batching_parameters_file is not None:
        return read_batching_limits(settings.batching_parameters_file)
    return BatchingLimits() if settings.enable_batching else None


def _are_small(entries: Sequence[ModelEntry]) -> bool:
    """Whether every version that is wanted now is so small that its operations are tiny."""
    for entry in entries:
        try:
            if not all(_is_small(version.path) for version in list_versions(watched(entry)).aspired.values()):
                return False
        except OSError:  # the source reports it
            continue
    return True


def _is_small(version: Path) -> bool:
    return sum(file.stat().st_size for file in version.rglob("*")) <= MAX_SMALL_MODEL_BYTES
