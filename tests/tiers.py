"""Which tests are run when: those of the inner loop, all of ``make test``, and those of the long form."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_SLOW = (
    "faults/",
    "end_to_end/",
    "conformance/test_lifecycle.py",
    "docs/test_merging_table.py",
    "flows/commands/test_foreign_errors.py",
    "flows/commands/test_logs.py",
    "flows/commands/test_secrets.py",
    "flows/endpoints/",
    "flows/fleet/",
    "flows/backups/test_backup.py",
    "flows/events/",
    "flows/gate/test_baseline_checks.py",
    "flows/gate/test_reasons.py",
    "flows/gate/test_sandbox.py",
    "flows/gate/test_weekly_retraining.py",
    "flows/local/test_stack.py",
    "flows/local/test_supervision.py",
    "flows/monitoring/",
    "flows/promotion/test_bake.py",
    "flows/promotion/test_canary.py",
    "flows/promotion/test_removal.py",
    "flows/promotion/test_unlabelled.py",
    "flows/recipes/test_shipped_recipes.py",
    "flows/reconciliation/",
    "flows/registry/",
    "flows/reports/test_doctor.py",
    "flows/reports/test_drift.py",
    "flows/reports/test_tables.py",
    "flows/commands/test_train.py",
    "flows/tables/test_model.py",
    "flows/training/test_checkpoints.py",
    "flows/training/test_given_models.py",
    "flows/training/test_training.py",
    "flows/training/test_recipe_options.py",
    "serving/inference/test_merging.py",
    "serving/request_log/test_request_log.py",
    "serving/runtime/test_row_independence_property.py",
    "serving/runtime/test_tf_session.py",
)
"""By ``--durations=0``: what the inner loop, ``make quick``, leaves out; other slow tests have the mark themselves."""
PROGRAMS = ("chromium", "kubectl", "pg_ctlcluster", "promtool")
"""Not on PyPI: Debian's packages chromium, prometheus, postgresql and kubernetes-client have them."""


def mark_slow(items: Sequence[pytest.Item]) -> None:
    """Mark the tests of `_SLOW`."""
    for item in items:
        if item.path.relative_to(_TESTS).as_posix().startswith(_SLOW):
            item.add_marker("slow")


def left_out(items: Sequence[pytest.Item], *, is_soak: bool) -> list[pytest.Item]:
    """Those that need a program that is not there, and those of the long form in the short one."""
    return [item for item in items if not _can_run(item) or (not is_soak and item.get_closest_marker("soak"))]


def is_there(program: str) -> bool:
    """Whether it is installed, or has to be as no test may be left out."""
    return "HOTSWAP_ALL_PROGRAMS" in os.environ or shutil.which(program) is not None


def _can_run(item: pytest.Item) -> bool:
    return all(is_there(each.args[0]) for each in item.iter_markers("needs"))
