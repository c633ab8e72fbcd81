"""Checks and makes the names of models and of their archives."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from serving.protocol.errors import HotswapError

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class InvalidModelName(HotswapError):
    """A model name is letters, digits, '.', '_' and '-', and starts with a letter or a digit."""


def validate_model_name(name: str) -> str:
    """
    `name`, when it can be a model's directory and address.

    Raises:
        InvalidModelName: It cannot.
    """
    if not MODEL_NAME.fullmatch(name):
        raise InvalidModelName(
            f"{name!r} cannot be a model's name: use letters, digits, '.', '_' and '-', the first a letter or a digit"
        )
    return name


def archive_name(model: str) -> str:
    """What the archive of a model is called that is removed now."""
    return f"{validate_model_name(model)}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
