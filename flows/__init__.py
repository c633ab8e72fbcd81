"""
Trains, judges, records and promotes models.

From Python: `train`, `promote`, `rollback` and `status`, which are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.api import promote, rollback, status, train

__all__ = ["promote", "rollback", "status", "train"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flows import api

    return getattr(api, name)
