"""A fleet: hosts that share no file system have what the registry says, or a promotion is undone on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.promotion.retirement import retire
from tests.fleet import Host, hosts
from tests.pipelines import Pipeline


@pytest.fixture
def fleet(offline: Pipeline, model_server: Any, tmp_path: Path) -> Iterator[tuple[Pipeline, list[Host]]]:
    """A model, and two hosts."""
    with hosts(offline, model_server, [tmp_path / "one", tmp_path / "two"]) as found:
        yield offline, found


def test_hosts_follow_the_registry(fleet: tuple[Pipeline, list[Host]]) -> None:
    """What is promoted, retired, restored and removed here is so at every host, byte for byte and by label."""
    pipeline, found = fleet
    first, second = pipeline.promote(1), pipeline.promote(2)
    for host in found:
        assert host.answered(pipeline.model, label="stable") == host.answered(pipeline.model) == {second}
        assert host.answered(pipeline.model, version=first) == {first}
    retire(pipeline.deployment, first)
    assert [host.versions(pipeline.model) for host in found] == [[second], [second]]
