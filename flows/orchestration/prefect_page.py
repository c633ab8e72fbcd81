"""
Prefect's server as `hotswap up` runs it.

``python -m flows.orchestration.prefect_page ARGUMENTS`` is ``prefect server start ARGUMENTS``, which answers a second
sooner, as nothing is collected while it is imported.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

from flows.machine.garbage import uncollected
from flows.orchestration.prefect_database import write_in_turn


def main() -> None:
    """Run until SIGTERM."""
    with uncollected():
        import_module("prefect.server.api.server")
        from prefect.cli import app

        write_in_turn()
    gc.freeze()  # what is loaded now stays; later collections need not look at it
    sys.argv[:1] = ["prefect", "server", "start"]
    app()


if __name__ == "__main__":
    main()
