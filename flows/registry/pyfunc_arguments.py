"""How a SavedModel becomes a model that ``mlflow.pyfunc`` can load."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow.pyfunc

from flows.registry.pyfunc_schema import input_example, pyfunc_signature
from serving.repository.stamp import GoldenRows

SAVED_MODEL = "saved_model"
_REQUIREMENTS = ("mlflow", "numpy", "tensorflow")


def arguments(saved_model: Path, golden: GoldenRows) -> dict[str, Any]:
    """What MLflow is told when it keeps a SavedModel, a directory called ``saved_model``, with its golden rows."""
    return {
        "python_model": str(Path(__file__).with_name("pyfunc_model.py")),
        "artifacts": {SAVED_MODEL: str(saved_model)},
        "signature": pyfunc_signature(golden),
        "input_example": input_example(golden),
        "pip_requirements": [f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS],
    }


def save(saved_model: Path, golden: GoldenRows, directory: Path) -> None:
    """Write it to a directory, without recording it."""
    mlflow.pyfunc.save_model(str(directory), **arguments(saved_model, golden))


def read_installed_packages() -> None:
    """
    Let MLflow look through all that is installed, which takes a second and which it does once in a process.

    Its function for this is not documented: where it is gone, each process looks for itself.
    """
    with suppress(ImportError):
        from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

        warn_dependency_requirement_mismatches([*_REQUIREMENTS])
