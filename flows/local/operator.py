"""
The process of `hotswap up` that looks after the models: it reconciles, delivers events, and answers over HTTP.

``python -m flows.local.operator`` runs it alone, as beside TensorFlow Serving.
"""

from __future__ import annotations

import logging
import os
import threading
import time

import requests

from flows.events.delivery import delivering
from flows.local import webhooks
from flows.local.data_watch import watching
from flows.local.interrupts import stop_on_signals
from flows.local.operator_http import answering
from flows.local.reconciler import Reconciler
from flows.settings import Settings, apply_environment, load_settings
from serving.protocol.redaction import redacted

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
    reconciler = Reconciler(settings, _print) if settings.reconcile_seconds else None
    wake = None if reconciler is None else reconciler.wake
    with answering(settings, wake), delivering(settings), watching(settings):
        if reconciler is not None:
            _subscribe(settings)
            reconciler.run(stop_requested)
        stop_requested.wait()


def _subscribe(settings: Settings) -> None:
    """Be told of moved aliases by our own MLflow; without that, the next turn finds them."""
    if os.environ["MLFLOW_TRACKING_URI"].startswith("http"):
        return
    try:
        webhooks.subscribe(settings)
    except requests.RequestException as exc:
        log.warning("MLflow does not tell of moved aliases: %s", redacted(str(exc)))


def _print(sentence: str) -> None:
    """On standard output, which is the terminal of `hotswap up`, and in the log."""
    log.warning("%s", sentence)
    print(f"{time.strftime('%H:%M:%S')} {sentence}", flush=True)


if __name__ == "__main__":
    main()
