"""
Follows what is changed by hand while `hotswap up` runs.

The operator compares all sides every few seconds (``HOTSWAP_RECONCILE_SECONDS``). A turn that finds nothing reads a few
small files and asks the server once; only a turn that repairs something is a Prefect run, where a Prefect server
answers. What cannot be repaired is announced once, on the terminal of `hotswap up`, and tried less and less often until
something changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from flows.orchestration import open_runs, prefect_access
from flows.orchestration.prefect_server import find_running_prefect
from flows.promotion.deployment import Deployment
from flows.reconciliation.findings import Finding, find
from flows.reconciliation.repair import Repair, repair
from flows.reconciliation.state import known_models
from flows.settings import Settings
from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redacted

log = logging.getLogger(__name__)

_MAX_PAUSE_SECONDS = 300.0
_WAKE_SECONDS = 0.1


@dataclass
class _Model:
    """The results of earlier turns."""

    found: Sequence[Finding] = ()
    """by the turn before"""
    remaining: Sequence[Finding] | None = None
    """after the last repair; it is not tried again for the same"""
    failures: int = 0
    retry_at: float = 0.0
    """of the monotonic clock"""
    announced: tuple[str, ...] = ()


class Reconciler:
    """Remembers what could not be repaired, so that it is not tried again at every turn."""

    def __init__(self, settings: Settings, announce: Callable[[str], None] = log.warning) -> None:
        """`announce` gets each sentence about what cannot be repaired, once."""
        self._settings = settings
        self._announce = announce
        self._known: dict[str, _Model] = {}
        self._woken: SimpleQueue[str] = SimpleQueue()

    def run(self, stop_requested: threading.Event) -> None:
        """Take turns until a stop is requested."""
        turn_at = time.monotonic() + self._settings.reconcile_seconds
        while not stop_requested.wait(min(_WAKE_SECONDS, self._settings.reconcile_seconds)):
            while not self._woken.empty():
                self.turn([self._woken.get()])
            if time.monotonic() >= turn_at:
                self.turn()
                turn_at = time.monotonic() + self._settings.reconcile_seconds

    def wake(self, model: str) -> None:
        """Take a turn of one model soon; any thread may call this."""
        self._woken.put(model)

    def turn(self, only: Collection[str] | None = None) -> list[str]:
        """Repair every model that needs it, or of these `only`; the names of those that were tried."""
        tried = []
        open_runs.end_in_prefect(self._settings)
        for name in [name for name in self._models() if only is None or name in only]:
            model = self._known.setdefault(name, _Model())
            try:
                if self._turn(name, model):
                    tried.append(name)
            except Exception as exc:
                # Whatever went wrong with one model, the others come next.
                self._announce_new(model, [f"{name} cannot be reconciled: {exc}"])
        return tried

    def _models(self) -> list[str]:
        try:
            return known_models(self._settings)
        except (HotswapError, OSError) as exc:
            log.warning("repository not read error=%s", exc)
            return []

    def _turn(self, name: str, model: _Model) -> bool:
        deployment = Deployment(self._settings, name)
        found, before = find(deployment), model.found
        model.found = found
        if not found:
            self._note_agreement(name, model)
            return False
        if deployment.repository.is_locked(name):
            return False
        if self._should_try(model, before):
            pause = min(self._settings.reconcile_seconds * 2**model.failures, _MAX_PAUSE_SECONDS)
            model.remaining, model.failures, model.retry_at = None, model.failures + 1, time.monotonic() + pause
            model.remaining = list(self._repair(deployment).remaining)
            model.failures = 0
            return True
        if found == before:
            self._announce_new(model, [f"{name}: {finding.what}; {finding.next_step}" for finding in found])
        return False

    def _should_try(self, model: _Model, before: Sequence[Finding]) -> bool:
        if model.found == model.remaining or not any(finding.repairable for finding in model.found):
            return False
        return model.found != before or time.monotonic() >= model.retry_at

    def _repair(self, deployment: Deployment) -> Repair:
        if find_running_prefect(self._settings) and prefect_access.is_usable():
            prefect_access.read_settings()  # it may have been imported before its server was found
            from flows.reconcile import reconcile

            return reconcile(deployment.model)[0]
        return repair(deployment)

    def _note_agreement(self, name: str, model: _Model) -> None:
        if model.announced:
            self._announce(f"{name}: everything agrees again")
        self._known[name] = _Model()

    def _announce_new(self, model: _Model, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            if sentence not in model.announced:
                self._announce(redacted(sentence))
        model.announced = tuple(sentences)
