"""Recorded requests over ``tf.Example`` are run before a version is served as the server runs such requests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import input_pb2, prediction_log_pb2

from serving.protocol.errors import GraphError
from serving.runtime.example_tasks import CLASSIFY, REGRESS
from serving.runtime.saved_model import LoadOptions, load
from serving.runtime.servable import Servable
from serving.runtime.warmup import WARMUP_FILE, warm_up
from tests.conformance.cases import MODELS

FEATURES = {"feature": {"x": {"float_list": {"value": [1.5, 2.0]}}}}
ONE = input_pb2.Input(example_list={"examples": [example_pb2.Example(features=FEATURES)]})


def task(signature: str, method: str) -> dict[str, Any]:
    return {"model_spec": {"name": "any", "signature_name": signature}, "method_name": method}


def several(*tasks: dict[str, Any], source: Any = ONE) -> Any:
    """A record of a MultiInference."""
    return prediction_log_pb2.PredictionLog(multi_inference_log={"request": {"tasks": tasks, "input": source}})


def single(kind: str, signature: str, source: Any = ONE) -> Any:
    """A record of a Classify or a Regress."""
    spec = {"name": "any", "signature_name": signature}
    return prediction_log_pb2.PredictionLog(**{kind: {"request": {"model_spec": spec, "input": source}}})


@pytest.fixture
def servable(tmp_path: Path) -> Servable:
    """Two heads with an input each, not warmed up."""
    shutil.copytree(MODELS / "two_heads" / "1", tmp_path / "1")
    return load("two_heads", 1, tmp_path / "1", LoadOptions())


def warmed(servable: Servable, record: Any) -> int:
    import tensorflow as tf

    path = servable.path / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record.SerializeToString())
    return warm_up(servable)


def test_the_tasks_of_a_multi_inference_are_run_together(servable: Servable) -> None:
    """What its first request would wait for is ready, and nothing that no request asks for."""
    record = several(task("classify_it", CLASSIFY), task("regress_it", REGRESS))
    assert warmed(servable, record) == 1
    assert servable.prepared == {"\nclassify_it\nregress_it"}


@pytest.mark.parametrize(
    ("record", "reported"),
    [
        (several(task("none", CLASSIFY)), "Requested signature not found in model graph: none"),
        (several(task("regress_it", REGRESS), task("regress_it", REGRESS)), "Duplicate evaluation of signature"),
        (several(task("regress_it", CLASSIFY)), 'at least one of "classes" or "scores"'),
        (several(task("classify_it", REGRESS)), "Expected one output Tensor."),
        (several(task("classify_it", "tensorflow/serving/predict")), "Unsupported signature method_name"),
        (several(task("classify_it", CLASSIFY), source=input_pb2.Input()), "Input is empty."),
        (single("classify_log", "none"), "No signature was found with the name: none"),
        (single("classify_log", "regress_it"), 'at least one of "classes" or "scores"'),
        (single("regress_log", "classify_it"), "Expected one output Tensor."),
        (single("regress_log", "regress_it", input_pb2.Input()), "Input is empty."),
    ],
)
def test_a_record_that_the_server_would_refuse_fails_the_load(record: Any, reported: str, servable: Servable) -> None:
    """With the text of the answer to such a request."""
    with pytest.raises(GraphError) as caught:
        warmed(servable, record)
    assert reported in caught.value.message


@pytest.mark.parametrize(("kind", "signature"), [("classify_log", "classify_it"), ("regress_log", "regress_it")])
def test_a_record_of_one_task_is_run(kind: str, signature: str, servable: Servable) -> None:
    """As ever."""
    assert warmed(servable, single(kind, signature)) == 1
    assert servable.prepared == {signature}
