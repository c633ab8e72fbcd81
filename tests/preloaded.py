"""What the processes of `tests.processes` are forked with: all that a command may import, imported once."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

from flows.settings import Settings, apply_environment
from serving.runtime.tensorflow_import import set_environment

gc.disable()  # Forks that looked through all of this for garbage would copy it, page by page.
_before = dict(os.environ)
with tempfile.TemporaryDirectory() as _home:
    # Prefect and TensorFlow read these when they are imported.
    for _name in [_name for _name in os.environ if _name.startswith(("PREFECT_", "MLFLOW_", "HOTSWAP_"))]:
        del os.environ[_name]
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    set_environment()
    apply_environment(Settings(home=Path(_home), models_repo=Path(_home)))

    import anyio._backends._asyncio
    import git
    import keras
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.system_metrics.system_metrics_monitor
    import narwhals._pandas_like.namespace
    import prefect.flow_engine
    import prefect.server.api.server
    import prefect.task_engine
    import rich._emoji_codes
    import sklearn.compose
    import sklearn.datasets
    import sklearn.impute
    import sklearn.linear_model
    import sqlalchemy.dialects.sqlite
    import sqlalchemy.orm
    import tensorflow

    import flows.cli
    import flows.commands.application
    import flows.commands.report_commands
    import flows.local.launch
    import flows.reconciliation.repair
    import flows.reports.doctor
    import flows.reports.status
    import flows.reports.tables
    import flows.train_and_promote
    import serving.server
    from flows.registry import pyfunc_arguments

    sqlalchemy.orm.configure_mappers()
    pyfunc_arguments.read_installed_packages()
gc.freeze()
os.environ.clear()
os.environ.update(_before)

__all__ = [
    "anyio",
    "flows",
    "git",
    "keras",
    "mlflow",
    "narwhals",
    "prefect",
    "rich",
    "serving",
    "sklearn",
    "tensorflow",
]
