"""
The part of the Prometheus page that TensorFlow Serving does not have: the process, the versions and the labels.

It is written by Prometheus's own client library, under names as Prometheus wants them.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.lifecycle.served_models import ServedModels
from serving.protocol.model_spec import ModelSpec


class ProcessMetrics(Collector):
    """What there is to say of the process and of what it serves."""

    def __init__(self, models: ServedModels) -> None:
        self._models = models
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """States and labels, as they are now."""
        states = GaugeMetricFamily(
            "hotswap_model_version_state",
            "1 for the state that a version is in",
            labels=("model_name", "version", "state"),
        )
        labels = GaugeMetricFamily(
            "hotswap_model_label_version", "the version that a label points to", labels=("model_name", "label")
        )
        for model in self._models.names():
            for status in self._models.status(ModelSpec(model)):
                states.add_metric((model, str(status.version), status.state.name), 1)
            for label, version in sorted(self._models.labels(model).items()):
                labels.add_metric((model, label), version)
        yield from (states, labels)

    def render(self) -> str:
        """This part of the page."""
        return generate_latest(self._registry).decode()
