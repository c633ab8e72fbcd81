"""Brings the checkpoint of an interrupted training to the machine where it goes on."""

from __future__ import annotations

from flows.promotion.deployment import Deployment
from flows.settings import Settings, apply_environment
from flows.training.checkpoints import directory_of


def bring_checkpoint(settings: Settings, model: str, run: str) -> None:
    """
    Fetch the checkpoint of MLflow run `run` from its artifacts, if it has one and this home has none.

    Raises:
        RegistryError: MLflow or its artifacts cannot be read.
    """
    directory = directory_of(settings.home, run)
    if not directory.exists():
        apply_environment(settings)
        Deployment(settings, model).registry.run(run).checkpoints.fetch(directory)
