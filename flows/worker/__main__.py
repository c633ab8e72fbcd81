"""
The worker of `hotswap up`: it serves the deployments of ``prefect.yaml``, and takes trainings from the command line.

``python -m flows.worker`` runs it alone.
"""

from __future__ import annotations

import logging
import threading

from flows.local.interrupts import stop_on_signals
from flows.settings import apply_environment, load_settings
from flows.worker.service import Worker
from serving.protocol.redaction import redact_logs


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("flows").setLevel(logging.INFO)
    redact_logs()
    settings = load_settings()
    apply_environment(settings)
    stop_requested = threading.Event()
    stop_on_signals(stop_requested)
    Worker(settings, stop_requested).run()


if __name__ == "__main__":
    main()
