"""
Counts what the server does, and writes the Prometheus page.

The page is TensorFlow Serving's: its metric names (with colons), labels, buckets and text layout, which the usual
client libraries refuse to write.

Source: tensorflow_serving/util/prometheus_exporter.cc, tensorflow_serving/servables/tensorflow/util.cc
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serving.inference.metric_names import METRICS, PREFIX
from serving.protocol import wire_pb2 as wire
from serving.protocol.text_protos import read_text_proto
from serving.runtime.usage import Histogram, Usage

if TYPE_CHECKING:
    from serving.inference.merging import Merging

DEFAULT_PATH = "/monitoring/prometheus/metrics"
MAX_REFUSED = 1000
BUCKETS_EXAMPLES = [2.0**power for power in range(15)]

_HISTOGRAMS_OF_ROWS = (
    "request_example_counts",
    "batching_session:input_batch_size",
    "batching_session:padding_size",
    "batching_session:processed_batch_size",
)


def read_metrics_path(config_file: Path) -> str | None:
    """
    The path that a ``MonitoringConfig`` file gives the page, or None where it is not turned on.

    Raises:
        InvalidRequest: It is not such a file.
        OSError: It cannot be read.
    """
    config = read_text_proto(config_file, wire.MonitoringConfig()).prometheus_config
    return (config.path or DEFAULT_PATH) if config.enable else None


class Metrics:
    """The counters and histograms of one server."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[tuple[str, ...], int]] = {name: defaultdict(int) for name in _named("counter")}
        self._histograms: dict[str, dict[tuple[str, ...], Histogram]] = {
            name: defaultdict(Histogram) for name in _named("histogram")
        }
        for name in _HISTOGRAMS_OF_ROWS:
            self._histograms[name] = defaultdict(lambda: Histogram(BUCKETS_EXAMPLES))

    def count_failure(self, model: str, status: str) -> None:
        """
        One request failed with this status name (``NOT_FOUND`` …).

        Clients choose the names that are refused: after `MAX_REFUSED` of them, new ones count as no name.
        """
        counts = self._counters["request_count"]
        is_known = (model, status) in counts or len(counts) < MAX_REFUSED
        counts[model if is_known else "", status] += 1

    def count_answer(self, model: str, api: str, entrypoint: str, seconds: float) -> None:
        """One request was answered well; `api` as the protocol names it, `entrypoint` ``REST`` or ``GRPC``."""
        self._counters["request_count"][model, "OK"] += 1
        self._histograms["request_latency"][model, api, entrypoint].observe(seconds * 1e6)

    def count_examples(self, model: str, examples: int) -> None:
        """One multi-inference has run over this many examples."""
        self._counters["request_example_count_total"][(model,)] += examples
        self._histograms["request_example_counts"][(model,)].observe(examples)

    def count_logged(self, model: str, status: str, exchanges: int) -> None:
        """So many requests and answers were kept in the request log, or were not, under this status name."""
        self._counters["request_log_count"][model, status] += exchanges

    def observe_batch(self, rows: int, padded_rows: int) -> None:
        """One request that keeps to batching's limits was run with this many rows, after it came with so many."""
        self._counters["batching_session:wrapped_run_count"][()] += 1
        self._histograms["batching_session:input_batch_size"][()].observe(rows)
        self._histograms["batching_session:processed_batch_size"][()].observe(padded_rows)
        self._histograms["batching_session:padding_size"][(str(padded_rows),)].observe(padded_rows - rows)

    def observe_warmup(self, path: str, status: str, records: int, seconds: float) -> None:
        """The warm-up of one version ended."""
        self._counters["model_warmup_records_read"][path, status] += records
        self._histograms["model_warmup_latency"][path, status].observe(seconds * 1e6)

    def count_run(self, usage: Usage, model: str, api: str, seconds: float) -> None:
        """One request to this model (``Predict``, ``Classify`` …) spent this long in the graph and waiting for it."""
        usage.latency.observe(seconds * 1e6)
        self._histograms["runtime_latency"][model, api, "TF1"].observe(seconds * 1e6)

    def counted(self, name: str) -> int:
        """What the counter ``/tensorflow/serving/…`` stands at, over all labels; 0 where there is none."""
        counts = self._counters.get(name.removeprefix("/tensorflow/serving/").replace("/", ":"), {})
        return sum(counts.values())

    def render(
        self,
        usages: Mapping[tuple[str, int], Usage],
        merging: Mapping[tuple[str, int], Mapping[str, Merging]] | None = None,
    ) -> str:
        """
        The whole page.

        Args:
            usages: By model and version.
            merging: By model and version, and by signature, whether requests that arrive together run as one.
        """
        by_version = {(model, str(version)): usage for (model, version), usage in usages.items()}
        self._counters["version_request_count"] = {key: usage.requests for key, usage in by_version.items()}
        self._counters["version_error_count"] = {key: usage.errors for key, usage in by_version.items()}
        self._histograms["version_runtime_latency"] = {key: usage.latency for key, usage in by_version.items()}
        lines: list[str] = []
        values = {**self._counters, "signature_merges_requests": _merging_values(merging or {})}
        for name, metric in sorted(METRICS.items()):
            full = f"{PREFIX}{name}"
            lines += (f"# HELP {full} {metric.help}", f"# TYPE {full} {metric.kind}")
            if metric.kind == "histogram":
                lines += _histogram_lines(full, metric.labels, self._histograms[name])
            else:
                lines += _value_lines(full, metric.labels, values[name])
        return "\n".join(lines) + "\n"


def _named(kind: str) -> list[str]:
    return [name for name, metric in METRICS.items() if metric.kind == kind]


def _merging_values(found: Mapping[tuple[str, int], Mapping[str, Merging]]) -> dict[tuple[str, ...], int]:
    return {
        (model, str(version), signature, each.operation or ""): int(each.merges)
        for (model, version), signatures in found.items()
        for signature, each in signatures.items()
    }


def _value_lines(name: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    for key, count in sorted(values.items()):
        yield f"{name}{{{_labels(labels, key)}}} {count}"


def _histogram_lines(name: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], Histogram]) -> Iterator[str]:
    for key, histogram in sorted(values.items()):
        text = _labels(labels, key)
        before_le = f"{text}," if text else ""
        cumulative = 0
        bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
        for bound, count in zip(bounds, histogram.counts, strict=True):
            cumulative += count
            yield f'{name}_bucket{{{before_le}le="{bound}"}} {cumulative}'
        yield f"{name}_sum{{{text}}} {histogram.total:g}"
        yield f"{name}_count{{{text}}} {cumulative}"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))


def _escape(value: str) -> str:
    readable = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # a name from a URL may be any bytes
    return readable.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
