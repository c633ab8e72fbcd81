"""A fleet: hosts that share no file system have what the registry says, or a promotion is undone on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.endpoints.addresses import at_addresses, every_host
from flows.endpoints.ownership import ForeignServer
from flows.promotion.deployment import Deployment
from flows.promotion.retirement import retire
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.registry.statement import STATEMENT
from flows.settings import Endpoint
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
    with pipeline.deployment.servers.connected() as servers:
        assert len(list(servers or ())) == len(found)
    retire(pipeline.deployment, first)
    assert [host.versions(pipeline.model) for host in found] == [[second], [second]]
    pipeline.registry._client.set_registered_model_tag(pipeline.model, STATEMENT, "by hand")
    (finding,) = find(pipeline.deployment)
    assert finding.what == "the hosts were told other versions or labels than are published"
    assert repair(pipeline.deployment).remaining == ()
    assert [host.versions(pipeline.model) for host in found] == [[second], [second]]
    assert find(pipeline.deployment) == []


def test_a_name_stands_for_all_its_hosts() -> None:
    """Each address of a name is a host of its own, over both protocols."""
    endpoint = Endpoint("http://serving:8501", "serving:8500")
    assert at_addresses(endpoint, ["10.0.0.7"]) == [endpoint]
    assert at_addresses(endpoint, ["10.0.0.7", "fd00::8"]) == [
        Endpoint("http://10.0.0.7:8501", "10.0.0.7:8500"),
        Endpoint("http://[fd00::8]:8501", "[fd00::8]:8500"),
    ]
    assert every_host([endpoint, Endpoint("http://127.0.0.1:1", "127.0.0.1:2")])[-1].grpc_target == "127.0.0.1:2"


def test_a_server_with_an_agent_is_not_reloaded_by_who_does_not_know_it(fleet: tuple[Pipeline, list[Host]]) -> None:
    """Without HOTSWAP_FLEET a command says that it is to be set, and does nothing."""
    pipeline, _ = fleet
    pipeline.promote(1)
    alone = Deployment(pipeline.settings.model_copy(update={"fleet": False}), pipeline.model)
    with pytest.raises(ForeignServer, match="takes its versions from a publish agent: set HOTSWAP_FLEET=true"):
        alone.servers.ask_first(pipeline.model)
