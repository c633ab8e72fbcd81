"""
MLflow's server as `hotswap up` runs it: only on tables of its own release.

MLflow itself migrates a database without a copy of it, if a table is missing, and else serves a page on which every
request fails. ``python -m flows.registry.mlflow_page ARGUMENTS`` is ``mlflow server ARGUMENTS`` with that check before.
"""

from __future__ import annotations

import os
import sys

from flows.registry.mlflow_access import check_schema, import_mlflow, translated
from flows.registry.mlflow_errors import RegistryError


def main() -> None:
    """Run until SIGTERM; what is wrong with the database is the last line of the log."""
    address = os.environ["MLFLOW_BACKEND_STORE_URI"]
    try:
        with translated(address, "served"):
            check_schema(address, "served")
    except RegistryError as exc:
        sys.exit(f"hotswap: {exc}")
    import_mlflow()
    from mlflow.cli import cli

    cli(["server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
