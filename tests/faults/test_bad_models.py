"""A bad model is its own misfortune: every other model in the same server answers all the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from tensorflow_serving.apis import prediction_log_pb2

from serving.repository.model_config import ModelEntry, render
from serving.repository.version_policy import All
from tests.conftest import wait_available
from tests.faults.bystander import undisturbed

Build = Callable[[Path], None]


def predict_only(predict: Callable[[Any], Any]) -> Build:
    """Builds a model of this one function of a float32 vector."""

    def build(target: Path) -> None:
        import tensorflow as tf

        module = tf.Module()
        specification = tf.TensorSpec([None], tf.float32, name="x")
        module.predict = tf.function(lambda x: {"y": predict(x)}, input_signature=[specification])
        tf.saved_model.save(module, str(target), signatures=module.predict)

    return build


def refusing(x: Any) -> Any:
    """Raises for all but small numbers."""
    import tensorflow as tf

    with tf.control_dependencies([tf.debugging.assert_less(x, 10.0, message="too large for me")]):
        return tf.identity(x)


def logarithm(x: Any) -> Any:
    """Not a number where x is negative, and infinite at zero."""
    import tensorflow as tf

    return tf.math.log(x)


def greedy(x: Any) -> Any:
    """Wants more memory than an address can name, for all but small numbers."""
    import tensorflow as tf

    size = tf.cast(tf.reduce_max(x), tf.int64)
    return tf.reduce_sum(tf.fill([size, size], 1.0)) + x


def counting(x: Any) -> Any:
    """Counts up to the largest number."""
    import tensorflow as tf

    (counted,) = tf.while_loop(lambda i: i < tf.reduce_max(x), lambda i: (i + 1.0,), (tf.constant(0.0),))
    return tf.reshape(counted, [1])


def build_waiting(gate: Path) -> Build:
    """Builds a model whose loading does not end before the file `gate` exists."""

    def build(target: Path) -> None:
        import tensorflow as tf

        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None], name="x")
            signature = v1.saved_model.predict_signature_def({"x": x}, {"y": tf.identity(x)})

            def is_closed(count: Any) -> Any:
                pattern = tf.gather(
                    [str(gate), ""], count % 1
                )  # in terms of the loop, or TensorFlow would look but once
                return tf.equal(tf.size(tf.io.matching_files(pattern)), 0)

            wait = v1.while_loop(is_closed, lambda count: count + 1, [0])
            builder = v1.saved_model.Builder(str(target))
            builder.add_meta_graph_and_variables(
                session, ["serve"], {"serving_default": signature}, main_op=tf.group(wait)
            )
            builder.save()

    return build


def write_records(target: Path, records: Sequence[bytes]) -> None:
    """Write a TFRecord file."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(target)) as writer:
        for record in records:
            writer.write(record)


def predict_log(signature_name: str, **data_types: int) -> bytes:
    """A recorded request to predict with this signature, its inputs empty tensors of these types."""
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature_name
    for alias, data_type in data_types.items():
        log.predict_log.request.inputs[alias].dtype = data_type
    serialized: bytes = log.SerializeToString()
    return serialized


@pytest.fixture
def models(tmp_path: Path, tiny_model: Any, model_server: Any) -> str:
    """The address of the models of a server: ``tiny``, and ``bad`` whose version 2 is still to come."""
    for name in ("tiny", "bad"):
        tiny_model(tmp_path / name, 1)
    config = tmp_path / "models.config"
    config.write_text(render([ModelEntry(name, str(tmp_path / name), All()) for name in ("tiny", "bad")]))
    server = model_server(model_config_file=config, max_num_load_retries=0)
    wait_available(server, "tiny", 1)
    return f"http://127.0.0.1:{server.rest_port}/v1/models"


def add(build: Build, base_path: Path) -> None:
    """Let a bad version 2 appear by one rename."""
    built = base_path.with_name("built")
    build(built)
    built.rename(base_path / "2")


def state_of(models: str, version: int, *expected: str) -> dict[str, Any]:
    """The status of a version of ``bad``, once it is in one of these states."""
    deadline = time.monotonic() + 30
    while True:
        rows = requests.get(f"{models}/bad", timeout=10).json()["model_version_status"]
        found: dict[str, Any] = next((row for row in rows if row["version"] == str(version)), {})
        if found.get("state") in expected:
            return found
        assert time.monotonic() < deadline, rows
        time.sleep(0.01)


def answer_of_bad(models: str, *values: float) -> requests.Response:
    """What the bad version answers."""
    return requests.post(f"{models}/bad/versions/2:predict", json={"inputs": values}, timeout=30)


@pytest.mark.parametrize(
    ("compute", "value", "times", "status", "told"),
    [(refusing, 99.0, 20, 400, "too large for me"), (greedy, 2.0**26, 1, 429, "OOM when allocating tensor")],
    ids=["refusing", "greedy"],
)
def test_a_model_that_raises_answers_with_its_reason(
    models: str, tmp_path: Path, compute: Callable[[Any], Any], value: float, times: int, status: int, told: str
) -> None:
    """The request that made it raise gets its words, and the next one is answered again."""
    add(predict_only(compute), tmp_path / "bad")
    state_of(models, 2, "AVAILABLE")
    with undisturbed(f"{models}/tiny"):  # TensorFlow itself waits ten seconds for memory, and all sessions with it
        for _ in range(times):
            refused = answer_of_bad(models, value)
            assert (refused.status_code, told in refused.json()["error"]) == (status, True), refused.text
            assert answer_of_bad(models, 1.0).status_code == 200


def test_a_model_that_is_slow_for_some_values_keeps_nobody_waiting(models: str, tmp_path: Path) -> None:
    """That it used to be quick does not make others wait when it is not."""
    add(predict_only(counting), tmp_path / "bad")
    state_of(models, 2, "AVAILABLE")
    for _ in range(5):
        assert answer_of_bad(models, 3.0).json() == {"outputs": [3.0]}
    with undisturbed(f"{models}/tiny", within_seconds=1.0):
        started = time.monotonic()
        assert answer_of_bad(models, 1_000_000.0).json() == {"outputs": [1_000_000.0]}
        assert time.monotonic() - started > 1.0


def test_a_run_that_does_not_end_is_ended(model_server: Any, tmp_path: Path) -> None:
    """More of them than there are threads, and the model answers again at once."""
    predict_only(counting)(tmp_path / "bad" / "2")
    server = model_server(
        model_name="bad", model_base_path=str(tmp_path / "bad"), rest_api_timeout_in_ms=300, grpc_max_threads=2
    )
    models = f"http://127.0.0.1:{server.rest_port}/v1/models"
    for _ in range(3):
        endless = answer_of_bad(models, 16_000_000.0)
        assert (endless.status_code, endless.json()) == (504, {"error": "Timed out waiting for notification"})
    started = time.monotonic()
    assert answer_of_bad(models, 3.0).json() == {"outputs": [3.0]}
    assert time.monotonic() - started < 2.0


def test_what_is_no_number_is_reported_as_such(models: str, tmp_path: Path) -> None:
    """NaN and infinity are written as TensorFlow Serving writes them."""
    add(predict_only(logarithm), tmp_path / "bad")
    state_of(models, 2, "AVAILABLE")
    with undisturbed(f"{models}/tiny"):
        answer = answer_of_bad(models, -1.0, 0.0, 1.0)
    assert answer.status_code == 200
    assert "".join(answer.text.split()) == '{"outputs":[NaN,-Infinity,0.0]}'


def test_a_model_without_its_variables_says_which_are_missing(models: str, tmp_path: Path, tiny_model: Any) -> None:
    """The version ends with the name of the file; version 1 goes on."""

    def build(target: Path) -> None:
        tiny_model(target.parent, 2, target.name)
        (target / "variables" / "variables.data-00000-of-00001").unlink()

    with undisturbed(f"{models}/tiny"), undisturbed(f"{models}/bad"):
        add(build, tmp_path / "bad")
        status = state_of(models, 2, "END")["status"]
    assert status["error_code"] == "NOT_FOUND"
    assert "variables.data-00000-of-00001" in status["error_message"]


@pytest.mark.parametrize(
    ("written", "code", "told"),
    [
        (b"not a record file", "DATA_LOSS", "Please verify your warmup data is in TFRecord format"),
        (b"", "OK", ""),
        ([b"\xff\xff no message"], "INVALID_ARGUMENT", "Failed to parse warmup record"),
        ([predict_log("none")], "FAILED_PRECONDITION", 'Serving signature key "none" not found.'),
        ([predict_log("serving_default", input=999)], "INVALID_ARGUMENT", "tensor parsing error: input"),
        (
            [prediction_log_pb2.PredictionLog(classify_log={}).SerializeToString()],
            "INVALID_ARGUMENT",
            "No classification inputs found in SignatureDef",
        ),
    ],
    ids=["no records", "nothing", "no message", "wrong signature", "no tensor", "no classifier"],
)
def test_a_broken_warm_up_file_is_reported(
    models: str, tmp_path: Path, tiny_model: Any, written: bytes | list[bytes], code: str, told: str
) -> None:
    """The version ends with what is wrong with its warm-up requests; without any it is served."""

    def build(target: Path) -> None:
        tiny_model(target.parent, 2, target.name)
        (target / "assets.extra").mkdir()
        path = target / "assets.extra" / "tf_serving_warmup_requests"
        path.write_bytes(written) if isinstance(written, bytes) else write_records(path, written)

    with undisturbed(f"{models}/tiny"), undisturbed(f"{models}/bad"):
        add(build, tmp_path / "bad")
        status = state_of(models, 2, "END", "AVAILABLE")
    assert (status["state"], status["status"]["error_code"]) == ("AVAILABLE" if code == "OK" else "END", code)
    assert told in status["status"]["error_message"]


def test_a_model_that_loads_for_long_keeps_nobody_waiting(models: str, tmp_path: Path, tiny_model: Any) -> None:
    """Requests are answered and other versions are loaded meanwhile; it is served as soon as it is ready."""
    gate = tmp_path / "gate"
    with undisturbed(f"{models}/tiny"), undisturbed(f"{models}/bad"):
        add(build_waiting(gate), tmp_path / "bad")
        state_of(models, 2, "LOADING")
        tiny_model(tmp_path / "bad", 3)
        state_of(models, 3, "AVAILABLE")
        assert state_of(models, 2, "LOADING")["status"]["error_code"] == "OK"
        assert answer_of_bad(models, 1.0).status_code == 404
        gate.touch()
        state_of(models, 2, "AVAILABLE")
        assert answer_of_bad(models, 1.0).json() == {"outputs": [1.0]}
