"""
The page of the operator for Prometheus.

Its metrics are computed when they are asked for, from the files of home and repository, so that they are right from the
start of the operator on, whichever process made the changes.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from flows.monitoring.collectors import COLLECTORS, Sources
from flows.settings import Settings


class Exposition(Collector):
    """The metrics of the operator's process and of the pipeline."""

    def __init__(self, settings: Settings) -> None:
        self._sources = Sources(settings)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The metrics of the pipeline."""
        for collector in COLLECTORS:
            yield from collector(self._sources)

    def page(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)
