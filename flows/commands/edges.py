"""Begins and ends every command: reads its settings, shows its progress, and prints its result."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.console import progress
from flows.console.terminal import wrapped

if TYPE_CHECKING:
    from flows.settings import Settings


def plain_settings() -> Settings:
    """The settings, for a command that needs neither MLflow nor Prefect."""
    from flows.settings import load_settings

    return load_settings()


@contextmanager
def at_work(what: str) -> Iterator[Settings]:
    """As `prepared`, with progress on a terminal during the block, which does `what`."""
    from flows.settings import apply_environment

    with progress.shown(what, logging.WARNING, quiet=True):
        settings = plain_settings()
        apply_environment(settings)
        yield settings


def prepared() -> Settings:
    """The settings, applied to the environment of MLflow and Prefect."""
    from flows.settings import apply_environment

    progress.show_logs(logging.WARNING)
    settings = plain_settings()
    apply_environment(settings)
    return settings


def show(data: dict[str, Any], text: str, as_json: bool, hanging: int = 0) -> None:
    """Print the result, as one JSON document or as text."""
    print(json.dumps(data) if as_json else wrapped(text, hanging=hanging))
