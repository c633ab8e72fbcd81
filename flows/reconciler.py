"""
Who follows what was changed by hand while `hotswap up` runs?

This process looks every few seconds (``HOTSWAP_RECONCILE_SECONDS``). A turn that finds nothing reads a few small files
and asks the server once; only a turn that repairs something is a Prefect run, where a Prefect server answers.
"""

from __future__ import annotations

import logging
import os
import signal
import threading

from flows import drift
from flows.launch import find_running_prefect
from flows.settings import Settings, apply_environment, load_settings
from serving.errors import HotswapError

log = logging.getLogger(__name__)


class Reconciler:
    """Remembers what could not be repaired, so that it is not tried again at every turn."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._left: dict[str, list[drift.Finding]] = {}

    def run(self, told_to_stop: threading.Event) -> None:
        """Take turns until told to stop."""
        while not told_to_stop.wait(self._settings.reconcile_seconds):
            self.turn()

    def turn(self) -> list[str]:
        """Repair every model that needs it; the names of those that were tried."""
        tried = []
        for model in self._models():
            try:
                if self._turn(model):
                    tried.append(model)
            except Exception as exc:
                # Whatever went wrong with one model, the others go on, and the next turn tries again.
                self._left.pop(model, None)
                log.warning("reconcile failed model=%s error=%s", model, exc)
        return tried

    def _models(self) -> list[str]:
        try:
            return drift.models(self._settings)
        except (HotswapError, OSError) as exc:
            log.warning("repository not read error=%s", exc)
            return []

    def _turn(self, model: str) -> bool:
        findings = drift.find(self._settings, model)
        if findings == self._left.get(model) or not any(finding.repairable for finding in findings):
            return False
        if drift.is_being_changed(self._settings, model):
            return False
        self._left[model] = list(self._repair(model).left)
        return True

    def _repair(self, model: str) -> drift.Repair:
        if find_running_prefect(self._settings):
            from flows.reconcile import reconcile

            return reconcile(model)[0]
        return drift.repair(self._settings, model)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("flows").setLevel(logging.INFO)
    settings = load_settings()
    apply_environment(settings)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    told_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_stop.set())
    Reconciler(settings).run(told_to_stop)


if __name__ == "__main__":
    main()
