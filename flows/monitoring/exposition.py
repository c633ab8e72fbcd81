"""
The metrics of the pipeline, as the operator exports them to Prometheus.

They are computed when they are asked for, from the files of home and repository, so that they are right from the start
of the operator on, and no command has to count anything.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from flows.settings import Settings


def exposition(settings: Settings) -> bytes:
    """The page in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return generate_latest(registry)
