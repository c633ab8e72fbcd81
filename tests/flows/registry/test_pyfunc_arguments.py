"""What is done once for all processes that are forked to train."""

from __future__ import annotations

from pathlib import Path

from flows.registry import pyfunc_arguments
from tests.processes import finish, start


def _note_what_is_known(file: Path) -> None:
    from mlflow.utils import requirements_utils

    requirements_utils._MODULES_TO_PACKAGES = None
    pyfunc_arguments.read_installed_packages()
    file.write_text(str(len(requirements_utils._MODULES_TO_PACKAGES or ())))


def test_mlflow_knows_what_is_installed_before_it_is_forked(tmp_path: Path) -> None:
    """``mlflow.utils.requirements_utils`` has looked through all packages, and keeps what it has found."""
    file = tmp_path / "known"
    assert finish(start(_note_what_is_known, file)) == 0
    assert int(file.read_text()) > 100
