"""
What the processes of the worker are forked with: all that a training may import, imported once.

Nothing is run here: a thread of TensorFlow, gRPC or Prefect would be missing in a fork.
"""

from __future__ import annotations

import gc
import os

from serving.runtime.native_logs import without_start_up_notes
from serving.runtime.tensorflow_import import set_environment

gc.disable()  # Forks that looked through all of this for garbage would copy it, page by page.
set_environment()
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
with without_start_up_notes():
    import keras
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.system_metrics.system_metrics_monitor
    import prefect.cli
    import sklearn.datasets
    import sklearn.linear_model
    import sqlalchemy.orm
    import tensorflow

    import flows.commands.application
    import flows.local.launch
    import flows.train_and_promote
    import flows.worker.rehearsal
    from flows.registry import pyfunc_arguments

sqlalchemy.orm.configure_mappers()
pyfunc_arguments.read_installed_packages()
gc.freeze()

__all__ = ["flows", "keras", "mlflow", "prefect", "sklearn", "tensorflow"]
