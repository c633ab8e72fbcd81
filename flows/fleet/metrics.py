"""What a publish agent tells Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client.process_collector import ProcessCollector

from flows.fleet.agent import Turn


class AgentMetrics:
    """The metrics of one agent."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._read_at = Gauge(
            "hotswap_agent_registry_read_timestamp_seconds", "When MLflow was last read", registry=registry
        )
        self._unsettled = Gauge(
            "hotswap_agent_unsettled_models", "Models that are not as the registry says", registry=registry
        )
        self._problems = Gauge(
            "hotswap_agent_not_fetched_versions", "Versions that could not be fetched", registry=registry
        )

    def serve(self, host: str, port: int) -> None:
        """Answer at ``http://HOST:PORT/metrics`` as long as this process runs."""
        start_http_server(port, host, self.registry)

    def tell(self, turn: Turn) -> None:
        """Note what a turn has come to."""
        if turn.is_read:
            self._read_at.set(time.time())
        self._unsettled.set(len(turn.unsettled))
        self._problems.set(sum(len(versions) for versions in turn.problems.values()))
