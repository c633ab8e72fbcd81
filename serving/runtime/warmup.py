"""
Runs the requests that a SavedModel wants answered before it goes live.

They are in ``assets.extra/tf_serving_warmup_requests``, and run once after loading, so that the first real request
finds everything prepared, each as the server runs such a request; one that fails fails the load.

Source: tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.protocol.errors import GraphError, InvalidRequest, Unsupported
from serving.protocol.signature import Signature, choose_signature
from serving.protocol.tensors import Array
from serving.runtime.example_tasks import (
    Aliases,
    answers_of,
    asked_of,
    checked_classify,
    checked_regress,
    classifications,
    find_signature,
    output_filter,
    regressions,
    serialized_examples,
    together,
)
from serving.runtime.requested import decode_inputs
from serving.runtime.servable import Servable
from serving.runtime.tf_session import read_records

log = logging.getLogger(__name__)

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000


def warm_up(servable: Servable, iterations: int = 1) -> int:
    """
    Run the recorded requests of a servable, each `iterations` times.

    Returns:
        The number of records.

    Raises:
        GraphError: A record cannot be read, or its request fails.
    """
    path = servable.path / WARMUP_FILE
    if not path.exists():
        return 0
    count = 0
    for record in _records(path):
        count += 1
        if count > MAX_RECORDS:
            text = f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
            raise GraphError(grpc.StatusCode.INVALID_ARGUMENT, text)
        for _ in range(max(iterations, 1)):
            try:
                _replay(servable, record)
            except (InvalidRequest, Unsupported) as exc:
                raise GraphError(exc.code, exc.message) from exc
    log.info("warm-up done model=%s version=%d records=%d", servable.model, servable.version, count)
    return count


def _records(path: Path) -> Iterator[Any]:
    try:
        for content in read_records(path):
            yield _parsed(content, path)
    except GraphError as exc:
        if exc.code is not grpc.StatusCode.DATA_LOSS:
            raise
        text = f"{exc.message}. Please verify your warmup data is in TFRecord format."
        raise GraphError(exc.code, text) from exc


def _parsed(content: bytes, path: Path) -> Any:
    try:
        return prediction_log_pb2.PredictionLog.FromString(content)
    except DecodeError as exc:
        text = f"Failed to parse warmup record: {content.decode('utf-8', 'replace')} from {path}"
        raise GraphError(grpc.StatusCode.INVALID_ARGUMENT, text) from exc


def _replay(servable: Servable, record: Any) -> None:
    kind = record.WhichOneof("log_type")
    if kind is None:
        return
    if kind == "predict_log":
        request = record.predict_log.request
        signature = _signature(servable, request.model_spec.signature_name)
        _run(servable, signature, decode_inputs(signature, request.inputs), list(request.output_filter))
    elif kind == "classify_log":
        request = record.classify_log.request
        signature = find_signature(servable, request.model_spec.signature_name)
        classifications(*_run_examples(servable, signature, checked_classify(servable, signature), request.input))
    elif kind == "regress_log":
        request = record.regress_log.request
        signature = find_signature(servable, request.model_spec.signature_name)
        regressions(*_run_examples(servable, signature, checked_regress(servable, signature), request.input))
    elif kind == "multi_inference_log":
        request = record.multi_inference_log.request
        asked = asked_of(servable, request.tasks)
        answers_of(request.tasks, asked, *_run_examples(servable, together(asked), (), request.input))
    else:
        number = record.DESCRIPTOR.fields_by_name[kind].number
        raise GraphError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")


def _run_examples(
    servable: Servable, signature: Signature, wanted: Aliases, source: Any
) -> tuple[dict[str, Array], int]:
    """The outputs, by alias, for so many examples."""
    examples = serialized_examples(source)
    inputs = dict.fromkeys(signature.inputs, examples)
    return _run(servable, signature, inputs, output_filter(signature, wanted)), len(examples)


def _run(
    servable: Servable, signature: Signature, inputs: dict[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    call, arrays = servable.bind(signature, inputs, outputs)
    call.check_types(arrays)
    return dict(zip(call.outputs, call(arrays), strict=True))


def _signature(servable: Servable, name: str) -> Signature:
    def missing(name: str) -> GraphError:
        return GraphError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')

    return choose_signature(servable.signatures, name, missing)
