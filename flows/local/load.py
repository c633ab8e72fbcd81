"""Clients that never stop asking while the versions of a model are swapped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clients import PredictClient
from flows.endpoints.connections import grpc_client, rest_client
from flows.settings import Settings
from serving.protocol.errors import ServingError
from serving.repository.store import Repository

_ANSWER_SECONDS = 60.0
_ASK_SECONDS = 0.02
_WATCH_SECONDS = 0.005


class Load:
    """Clients that ask again and again, and the results; all times are of one monotonic clock, in seconds."""

    def __init__(
        self, clients: Sequence[PredictClient], repository: Repository, model: str, row: Sequence[Sequence[float]]
    ) -> None:
        self.count = 0
        self.slowest = 0.0
        self.errors: list[str] = []
        self.first_answer: dict[int, float] = {}
        self.last_absent: dict[int, float] = {}
        """by version that has appeared since, when it was last seen to be absent"""
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._repository = repository
        self._model = model
        self._row = row
        self._threads = [threading.Thread(target=self._ask, args=(client,)) for client in clients]
        self._threads.append(threading.Thread(target=self._watch))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: int) -> bool:
        """Whether this version has answered before too long."""
        with self._changed:
            return self._changed.wait_for(lambda: version in self.first_answer, _ANSWER_SECONDS)

    def _watch(self) -> None:
        checked, known = time.perf_counter(), set(self._repository.versions(self._model))
        while not self._stopped.wait(_WATCH_SECONDS):
            now = time.perf_counter()
            for version in set(self._repository.versions(self._model)) - known:
                self.last_absent.setdefault(version, checked)
            checked = now

    def _ask(self, client: PredictClient) -> None:
        # A short pause between requests leaves the processor to the training.
        while not self._stopped.wait(_ASK_SECONDS):
            started = time.perf_counter()
            try:
                version = client.predict(self._model, self._row).version
            except ServingError as exc:
                with self._changed:
                    self.errors.append(str(exc))
                continue
            with self._changed:
                self.count += 1
                self.slowest = max(self.slowest, time.perf_counter() - started)
                if version is not None:
                    self.first_answer.setdefault(version, time.perf_counter())
                self._changed.notify_all()


@contextmanager
def under_load(settings: Settings, model: str, row: Sequence[Sequence[float]]) -> Iterator[Load]:
    """Ask for `row` over both protocols during the block."""
    with rest_client(settings) as rest, grpc_client(settings) as grpc:
        load = Load([rest, grpc], Repository(settings.models_repo), model, row)
        load.start()
        try:
            yield load
        finally:
            load.stop()
