"""
What the server counts, by name: those of TensorFlow Serving, as it names and labels them, and a few of its own.

The page writes ``:tensorflow:serving:`` before each.

Source: tensorflow_serving/servables/tensorflow/util.cc
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = ":tensorflow:serving:"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    is_own: bool = False
    """whether TensorFlow Serving does not have it"""


METRICS = {
    "batching_session:input_batch_size": Metric(
        "histogram", (), "rows of each request, as it came, where batching parameters apply"
    ),
    "batching_session:padding_size": Metric(
        "histogram", ("execution_batch_size",), "rows added to reach an allowed batch size"
    ),
    "batching_session:processed_batch_size": Metric("histogram", (), "rows of each run, padding included"),
    "batching_session:queuing_latency": Metric(
        "histogram", ("thread_pool_name",), "microseconds spent waiting for a batch"
    ),
    "batching_session:wrapped_run_count": Metric("counter", (), "runs under batching parameters"),
    "model_warmup_latency": Metric("histogram", ("model_path", "status"), "microseconds of each version's warm-up"),
    "model_warmup_records_read": Metric("counter", ("model_path", "status"), "warm-up records that were run"),
    "request_count": Metric("counter", ("model_name", "status"), "requests by status"),
    "request_example_count_total": Metric("counter", ("model",), "examples of Classify, Regress and MultiInference"),
    "request_example_counts": Metric("histogram", ("model",), "examples per request"),
    "request_latency": Metric(
        "histogram", ("model_name", "API", "entrypoint"), "microseconds from reading a request to its answer"
    ),
    "request_log_count": Metric("counter", ("model_name", "status_code"), "logged requests"),
    "runtime_latency": Metric(
        "histogram",
        ("model_name", "API", "runtime"),
        "microseconds that requests spend in the graph, waiting for it included",
    ),
    "signature_merges_requests": Metric(
        "gauge",
        ("model_name", "version", "signature_name", "operation"),
        "1 where requests that arrive together are one run, else 0 and the operation that prevents it",
        is_own=True,
    ),
    "version_error_count": Metric(
        "counter", ("model_name", "version"), "requests to a version that failed", is_own=True
    ),
    "version_request_count": Metric("counter", ("model_name", "version"), "requests to a version", is_own=True),
    "version_runtime_latency": Metric(
        "histogram", ("model_name", "version"), "`runtime_latency` by version", is_own=True
    ),
}
