"""
A Prefect server that ends with the process that started it.

`prefect_server` starts it as ``python -m flows.orchestration.temporary_prefect FD``: FD is a socket that listens
already, and standard input a pipe that closes when the other process ends, even by SIGKILL.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading

import uvicorn

from flows.machine.garbage import uncollected
from flows.orchestration.prefect_database import write_in_turn
from serving.protocol.redaction import redact_logs, redacted_output


def main() -> None:
    """Run until the other process ends; the log carries no secret."""
    redact_logs()
    with redacted_output():
        _serve()


def _serve() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    listening = socket.socket(fileno=int(sys.argv[1]))
    with uncollected():
        from prefect.server.api.server import create_app

        write_in_turn()
        app = create_app()
    gc.freeze()  # what is loaded now stays; later collections need not look at it
    config = uvicorn.Config(app, lifespan="on", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # a buffered read would hold a lock that the interpreter needs when it ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
