"""
MLflow's server as `hotswap up` runs it: only on tables of its own release, and in one process.

MLflow itself migrates a database without a copy of it, if a table is missing, and else serves a page on which every
request fails. And it imports everything twice, for the process that looks at its options and for the one that serves,
so it answers two seconds later. ``python -m flows.registry.mlflow_page ARGUMENTS`` is ``mlflow server ARGUMENTS`` with
that check before, and without the second process.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from flows.machine.garbage import uncollected
from flows.registry.mlflow_access import check_schema, translated
from flows.registry.mlflow_errors import RegistryError

_UVICORN = [sys.executable, "-m", "uvicorn"]
_START = "_exec_cmd"
"""by this MLflow starts its second process; where a release has none, or starts another program, it does as it likes"""


def main(arguments: Sequence[str]) -> None:
    """Run until SIGTERM; what is wrong with the database is the last line of the log."""
    address = os.environ["MLFLOW_BACKEND_STORE_URI"]
    try:
        with translated(address, "served"):
            check_schema(address, "served")
    except RegistryError as exc:
        sys.exit(f"hotswap: {exc}")
    with uncollected():
        import_module("uvicorn")  # where this is there, MLflow's server knows that it has to refuse foreign names
        from mlflow import server
        from mlflow.cli import cli
    if start := getattr(server, _START, None):
        setattr(server, _START, partial(_serve, start))
    cli(["server", *arguments])


def _serve(start: Callable[..., Any], command: Sequence[str], *, extra_env: Mapping[str, str], **options: Any) -> Any:
    """Do here what MLflow would start ``python -m uvicorn … APP`` for."""
    if [*command[: len(_UVICORN)]] != _UVICORN:
        return start(command, extra_env=extra_env, **options)
    import uvicorn

    os.environ.update(extra_env)
    with uncollected():
        import_module(command[-1].partition(":")[0])
    gc.freeze()  # what is loaded now stays; later collections need not look at it
    return uvicorn.main([*command[len(_UVICORN) :]])


if __name__ == "__main__":
    main(sys.argv[1:])
