"""While models and configurations come, change and go, the server does what TensorFlow Serving did."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cases import read_scenarios
from tests.conformance.scenario import Scenario

SCENARIOS = {scenario["id"]: scenario["steps"] for scenario in read_scenarios()}
AT_A_TIME = 8


class Ahead:
    """Scenarios mostly wait: the next ones run already while a test waits for its own."""

    def __init__(self, names: list[str], root: Path, strict: bool) -> None:
        self._names = names
        self._root = root
        self._strict = strict
        self._pool = ThreadPoolExecutor(AT_A_TIME)
        self._started: dict[str, Future[str]] = {}

    def first_difference(self, name: str) -> str:
        """Where this scenario differs from what was recorded."""
        index = self._names.index(name)
        for each in self._names[index : index + AT_A_TIME]:
            if each not in self._started:
                self._started[each] = self._pool.submit(self._run, each)
        return self._started[name].result()

    def close(self) -> None:
        """Wait for what has been started."""
        self._pool.shutdown()

    def _run(self, name: str) -> str:
        root = self._root / name
        root.mkdir()
        return Scenario(SCENARIOS[name], root).first_difference(self._strict)


@pytest.fixture(scope="module")
def ahead(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, strict: bool) -> Iterator[Ahead]:
    """Runs the chosen scenarios, in their order."""
    specs: list[Any] = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [spec.params["name"] for spec in specs if spec is not None and spec.params.get("name") in SCENARIOS]
    ahead = Ahead(chosen, tmp_path_factory.mktemp("scenarios"), strict)
    yield ahead
    ahead.close()


@pytest.mark.xdist_group("lifecycle")
@pytest.mark.parametrize("name", SCENARIOS)
def test_lifecycle(name: str, ahead: Ahead) -> None:
    """Every step shows what was recorded."""
    found = ahead.first_difference(name)
    assert not found
