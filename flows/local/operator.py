"""
The process of `hotswap up` that looks after the models: it reconciles, delivers events, and answers over HTTP.

``python -m flows.local.operator`` runs it alone, as beside TensorFlow Serving.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from flows.events.delivery import delivering
from flows.local.interrupts import stop_on_signals
from flows.local.operator_http import answering
from flows.local.reconciler import Reconciler
from flows.settings import apply_environment, load_settings

log = logging.getLogger(__name__)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("flows").setLevel(logging.INFO)
    settings = load_settings()
    apply_environment(settings)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    stop_requested = threading.Event()
    stop_on_signals(stop_requested)
    with answering(settings), delivering(settings):
        if settings.reconcile_seconds:
            Reconciler(settings, _print).run(stop_requested)
        stop_requested.wait()


def _print(sentence: str) -> None:
    """On standard output, which is the terminal of `hotswap up`, and in the log."""
    log.warning("%s", sentence)
    print(f"{time.strftime('%H:%M:%S')} {sentence}", flush=True)


if __name__ == "__main__":
    main()
