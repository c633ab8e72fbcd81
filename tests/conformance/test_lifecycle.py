"""While models and configurations come, change and go, the server does what TensorFlow Serving did."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cases import read_scenarios
from tests.conformance.launch import wait_until
from tests.conformance.scenario import Scenario

SCENARIOS = {scenario["id"]: scenario["steps"] for scenario in read_scenarios()}
AT_A_TIME = 8
REPORT_SECONDS = 200.0


class Ahead:
    """
    Scenarios mostly wait: the next ones run already while a test waits for its own.

    Each runs in the worker that is first to make its directory; its outcome is in a file that every worker can read.
    """

    def __init__(self, names: list[str], root: Path, strict: bool) -> None:
        self._names = names
        self._root = root
        self._strict = strict
        self._pool = ThreadPoolExecutor(AT_A_TIME)
        self._submitted: set[str] = set()

    def first_difference(self, name: str) -> str:
        """Where this scenario differs from what was recorded."""
        index = self._names.index(name)
        for each in self._names[index : index + AT_A_TIME]:
            if each not in self._submitted:
                self._submitted.add(each)
                self._pool.submit(self._run, each)
        report = self._report(name)
        assert wait_until(report.exists, REPORT_SECONDS)
        return report.read_text()

    def close(self) -> None:
        """Wait for all that has been submitted."""
        self._pool.shutdown()

    def _run(self, name: str) -> None:
        root = self._root / name
        try:
            root.mkdir(parents=True)
        except FileExistsError:
            return
        try:
            found = Scenario(SCENARIOS[name], root).first_difference(self._strict)
        except Exception:
            found = traceback.format_exc()
        partial = self._root / f"{name}.partial"
        partial.write_text(found)
        partial.rename(self._report(name))

    def _report(self, name: str) -> Path:
        return self._root / f"{name}.txt"


@pytest.fixture(scope="module")
def ahead(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str, strict: bool
) -> Iterator[Ahead]:
    """Runs the chosen scenarios, in their order."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    specs: list[Any] = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [spec.params["name"] for spec in specs if spec is not None and spec.params.get("name") in SCENARIOS]
    ahead = Ahead(chosen, shared / "scenarios", strict)
    yield ahead
    ahead.close()


@pytest.mark.parametrize("name", SCENARIOS)
def test_lifecycle(name: str, ahead: Ahead) -> None:
    """Every step shows what was recorded."""
    found = ahead.first_difference(name)
    assert not found
