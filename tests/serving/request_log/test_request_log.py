"""What does the server keep of requests and answers, and what does it cost those who ask?"""

from __future__ import annotations

import itertools
import shutil
import stat
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from tensorflow_serving.apis import inference_pb2, prediction_log_pb2

from clients.grpc_client import GrpcClient
from flows.drift.logged import logged_rows
from serving.protocol.tensors import decode
from serving.request_log.columns import Columns, hash_of
from serving.request_log.files import FRAME_BYTES, Limits, LogFiles, log_files, whole_records
from serving.request_log.records import Writing
from serving.request_log.request_log import MAX_WAITING_BYTES, RequestLog
from serving.request_log.waiting import MAX_WAITING
from serving.runtime.tf_session import read_records
from serving.startup import StartupError
from tests import processes
from tests.conformance.cases import MODELS
from tests.conftest import ModelServer, TinyModel, wait_available
from tests.waiting import until

ROW = [[1.0, 2.0, 3.0, 4.5]]
KEY = b"0123456789abcdef"

LIMITS = Limits(file_bytes=2**20, file_seconds=3600.0, total_bytes=2**22)


def write_config(directory: Path, logging: str) -> Path:
    path = directory / "models.config"
    entry = f"name: 'tiny' base_path: '{directory / 'tiny'}' model_platform: 'tensorflow' {logging}"
    path.write_text(f"model_config_list {{ config {{ {entry} }} }}")
    return path


def ask(server: Any, times: int) -> None:
    with GrpcClient(f"127.0.0.1:{server.grpc_port}", 10) as client:
        for _ in range(times):
            client.predict("tiny", {"input": np.array(ROW, np.float32)})


def records(directory: Path) -> list[Any]:
    parse = prediction_log_pb2.PredictionLog.FromString
    return [parse(content) for path in log_files(directory) for content in read_records(path)]


def test_rest_and_grpc_predicts_are_kept_as_the_same_prediction_log(
    tmp_path: Path, tiny_model: TinyModel, model_server: ModelServer
) -> None:
    """A predict is kept with its values, its answer, its version and its time, whichever protocol it came by."""
    tiny_model(tmp_path / "tiny", 7)
    directory = tmp_path / "log"
    server = model_server(
        model_name="tiny",
        model_base_path=str(tmp_path / "tiny"),
        request_log_directory=directory,
        request_log_sampling_rate=1.0,
    )
    requests.post(
        f"http://127.0.0.1:{server.rest_port}/v1/models/tiny:predict", json={"instances": ROW}, timeout=10
    ).raise_for_status()
    with GrpcClient(f"127.0.0.1:{server.grpc_port}", 10) as client:
        client.predict("tiny", {"input": np.array(ROW, np.float32)})
    server.stop()
    by_rest, by_grpc = records(directory)
    assert by_rest.predict_log == by_grpc.predict_log
    assert by_rest.predict_log.request.model_spec.name == "tiny"
    assert decode(by_rest.predict_log.request.inputs["input"]).tolist() == ROW
    assert decode(by_rest.predict_log.response.outputs["output"]).tolist() == [[17.5, 112.0, 1057.0]]
    assert by_rest.log_metadata.model_spec.version.value == 7
    assert by_rest.log_metadata.sampling_config.sampling_rate == 1.0
    assert by_rest.log_metadata.timestamp_secs > 1.7e9
    assert server.data_plane.metrics.counted("request_log_count") == 2
    assert [stat.S_IMODE(path.stat().st_mode) for path in log_files(directory)] == [0o600]


def test_nothing_is_kept_unless_asked(tmp_path: Path, tiny_model: TinyModel, model_server: ModelServer) -> None:
    """Without a directory there is no log, and a model's logging_config is refused as TensorFlow Serving refuses it."""
    tiny_model(tmp_path / "tiny", 1)
    config = write_config(tmp_path, "logging_config { sampling_config { sampling_rate: 1 } }")
    assert model_server(model_name="tiny", model_base_path=str(tmp_path / "tiny")).data_plane.request_log is None
    with pytest.raises(StartupError, match="No request-logger-creator provided"):
        model_server(model_config_file=config)


@pytest.mark.parametrize(("rate", "kept"), [("1", 3), ("0", 0)])
def test_the_rate_of_a_models_own_config_goes_before(
    tmp_path: Path, tiny_model: TinyModel, model_server: ModelServer, rate: str, kept: int
) -> None:
    """The sampling_rate of a model's logging_config decides for that model, whatever the flag says."""
    tiny_model(tmp_path / "tiny", 1)
    config = write_config(tmp_path, f"logging_config {{ sampling_config {{ sampling_rate: {rate} }} }}")
    other = 1.0 - float(rate)
    server = model_server(
        model_config_file=config, request_log_directory=tmp_path / "log", request_log_sampling_rate=other
    )
    ask(server, times=3)
    server.stop()
    assert len(records(tmp_path / "log")) == kept


def test_a_share_of_the_requests_is_kept(tmp_path: Path, tiny_model: TinyModel, model_server: ModelServer) -> None:
    """Of many requests about the share that the rate says is kept."""
    tiny_model(tmp_path / "tiny", 1)
    server = model_server(
        model_name="tiny", model_base_path=str(tmp_path / "tiny"), request_log_directory=tmp_path / "log",
        request_log_sampling_rate=0.3,
    )  # fmt: skip
    ask(server, times=1000)
    server.stop()
    kept = records(tmp_path / "log")
    assert 200 < len(kept) < 400
    assert all(decode(each.predict_log.request.inputs["input"]).tolist() == ROW for each in kept)
    assert all(each.predict_log == kept[0].predict_log for each in kept)  # also those whose like was written before


def test_each_of_many_predicts_is_kept_with_its_own_values(
    tmp_path: Path, tiny_model: TinyModel, model_server: ModelServer
) -> None:
    """Predicts of other sizes and versions among each other are all kept, and files are rotated between any two."""
    for version in (1, 2):
        tiny_model(tmp_path / "tiny", version)
    config = write_config(tmp_path, "model_version_policy { all {} }")
    server = model_server(
        model_config_file=config, request_log_directory=tmp_path / "log", request_log_sampling_rate=1.0,
        request_log_file_bytes=12_000,
    )  # fmt: skip
    wait_available(server, "tiny", 1, 2)
    asked = []
    with GrpcClient(f"127.0.0.1:{server.grpc_port}", 10) as client:
        for number in range(120):
            version, rows = 1 + number % 2, np.arange(4.0 * (number % 3)).reshape(-1, 4) + number
            answer = client.predict("tiny", {"input": rows.astype(np.float32)}, version=version)
            asked.append((version, rows.tolist(), answer.outputs["output"].tolist()))
    server.stop()
    kept = [(record.log_metadata.model_spec.version.value, record.predict_log) for record in records(tmp_path / "log")]
    found = [
        (version, decode(log.request.inputs["input"]).tolist(), decode(log.response.outputs["output"]).tolist())
        for version, log in kept
    ]
    assert sorted(found) == sorted(asked)
    sizes = [path.stat().st_size for path in log_files(tmp_path / "log")]
    assert len(sizes) > 1
    assert max(sizes) <= 12_000


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"request_log_sampling_rate": 1.5}, "--request_log_sampling_rate must be from 0 to 1"),
        ({"request_log_file_bytes": 2**31}, "--request_log_file_bytes must be above 0 and at most"),
        ({"request_log_file_seconds": 0.0}, "--request_log_file_seconds must be above 0"),
        ({"request_log_hash": "input"}, "--request_log_hash needs a --request_log_key_file"),
        ({"request_log_hash": "input", "request_log_key_file": Path("/dev/null")}, "at least 16 bytes"),
        ({"request_log_directory": Path("/dev/null/log")}, "/dev/null/log; Not a directory"),
    ],
)
def test_bad_flags(
    tmp_path: Path, tiny_model: TinyModel, model_server: ModelServer, flags: dict[str, Any], why: str
) -> None:
    """A flag that cannot be used ends the start, with what is wrong."""
    tiny_model(tmp_path / "tiny", 1)
    given = {"request_log_directory": tmp_path / "log", **flags}
    with pytest.raises(StartupError, match=why):
        model_server(model_name="tiny", model_base_path=str(tmp_path / "tiny"), **given)


def test_columns_are_left_out_or_hashed() -> None:
    """Equal values of a hashed column have equal hashes, other ones with another key; what is left out is gone."""
    columns = Columns(frozenset({"name"}), frozenset({"city"}), b"k" * 16)
    cities = np.array([b"Oslo", b"", b"Oslo", b"Bergen"], object)
    kept = dict(columns.kept(["name", "city", "age"], [cities, cities, np.arange(4)]))
    assert list(kept) == ["city", "age"]
    assert kept["city"].tolist() == [
        hash_of(b"Oslo", b"k" * 16),
        b"",
        hash_of(b"Oslo", b"k" * 16),
        hash_of(b"Bergen", b"k" * 16),
    ]
    assert hash_of(b"Oslo", b"k" * 16) != hash_of(b"Oslo", b"l" * 16)
    assert all(len(value) in (0, 32) for value in kept["city"])


def test_examples_are_kept_with_their_answers(tmp_path: Path, model_server: ModelServer) -> None:
    """A classify, a regress and a multi-inference are kept, with their features left out and hashed as asked."""
    shutil.copytree(MODELS / "classify_regress", tmp_path / "examples")
    (tmp_path / "key").write_text("0123456789abcdef")
    server = model_server(
        model_name="examples",
        model_base_path=str(tmp_path / "examples"),
        request_log_directory=tmp_path / "log",
        request_log_sampling_rate=1.0,
        request_log_hash="x",
        request_log_leave_out="name",
        request_log_key_file=tmp_path / "key",
    )
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/examples"
    body = {"examples": [{"x": [1.5, 2.5], "name": "Ann"}]}
    classified = requests.post(f"{url}:classify", json=body, timeout=10).json()["results"][0]
    regressed = requests.post(f"{url}:regress", json={**body, "signature_name": "regress"}, timeout=10).json()[
        "results"
    ]
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.add().features.feature["x"].float_list.value.extend([1.5, 2.5])
    request.tasks.add(method_name="tensorflow/serving/classify").model_spec.name = "examples"
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call: Any = channel.unary_unary("/tensorflow.serving.PredictionService/MultiInference")
        call(request.SerializeToString(), timeout=10)
    server.stop()
    kept = [getattr(record, record.WhichOneof("log_type")) for record in records(tmp_path / "log")]
    classify, regress, multi = kept
    assert [[each.label, each.score] for each in classify.response.result.classifications[0].classes] == classified
    assert [each.value for each in regress.response.result.regressions] == regressed
    assert multi.response.results[0].classification_result == classify.response.result
    hashes = {"x": [hash_of(1.5, KEY), hash_of(2.5, KEY)]}
    for log in kept:
        features = log.request.input.example_list.examples[0].features.feature
        assert {name: list(each.bytes_list.value) for name, each in features.items()} == hashes
    read = logged_rows(tmp_path / "log", "examples", ["x", "name"]).inputs
    assert {name: values.tolist() for name, values in read.items()} == {"x": [hashes["x"]] * 3}


def test_files_are_rotated_and_bounded(tmp_path: Path) -> None:
    """A file that is full is followed by another, and the oldest go when all together would be too large."""
    files = LogFiles(tmp_path, Limits(file_bytes=1000, file_seconds=3600.0, total_bytes=3500))
    for number in range(100):
        files.write([b"%04d" % number + b"x" * 196])
        assert sum(path.stat().st_size for path in log_files(tmp_path)) <= 3500
    files.close()
    sizes = [path.stat().st_size for path in log_files(tmp_path)]
    assert set(sizes) == {4 * (200 + FRAME_BYTES)}
    numbers = [int(record[:4]) for path in log_files(tmp_path) for record in read_records(path)]
    assert numbers == list(range(88, 100))


def test_an_old_file_is_closed(tmp_path: Path) -> None:
    """A file that has reached its age is followed by another."""
    files = LogFiles(tmp_path, Limits(file_bytes=2**20, file_seconds=0.0, total_bytes=2**20 * 4))
    files.write([b"one"])
    files.write([b"two"])
    files.close()
    assert [list(read_records(path)) for path in log_files(tmp_path)] == [[b"one"], [b"two"]]


def test_a_record_that_was_cut_off_costs_itself_alone(tmp_path: Path) -> None:
    """Of a file whose last record is cut off, as by a crash, every whole record is read, and a changed one is told."""
    files = LogFiles(tmp_path, LIMITS)
    files.write([b"one" * 50, b"two" * 50, b"three" * 50])
    files.close()
    (path,) = log_files(tmp_path)
    content = path.read_bytes()
    for cut in range(1, 166):
        path.write_bytes(content[:-cut])
        assert list(whole_records(path)) == [b"one" * 50, b"two" * 50]
    path.write_bytes(content.replace(b"two", b"owt", 1))
    assert list(whole_records(path)) == [b"one" * 50]


def write_for_ever(directory: Path) -> None:
    """Write numbers, as long as the process lives."""
    files = LogFiles(directory, Limits(2**30, 3600.0, 2**31))
    for number in itertools.count():
        files.write([b"%08d" % number * 1000])


def test_a_killed_writer_leaves_whole_records(tmp_path: Path) -> None:
    """Whenever a process is killed, all records that it had written are there, and nothing else."""
    process = processes.start(write_for_ever, tmp_path)
    until(lambda: sum(path.stat().st_size for path in log_files(tmp_path)) >= 10**6, looking_every=0.001)
    process.kill()
    processes.finish(process)
    found = [int(record[:8]) for path in log_files(tmp_path) for record in whole_records(path)]
    assert found == list(range(len(found)))
    assert len(found) > 100


class Asked:
    """An exchange of a size, whose record waits until it may be made."""

    model = "tiny"
    count = 1

    def __init__(self, size_bytes: int, may_be_made: threading.Event) -> None:
        self.size_bytes = size_bytes
        self._may_be_made = may_be_made

    def records(self, writing: Writing) -> list[bytes]:
        self._may_be_made.wait()
        return [b"record"]


@pytest.mark.parametrize(("size", "most"), [(1, MAX_WAITING), (MAX_WAITING_BYTES // 4, 4)])
def test_what_cannot_wait_is_dropped_and_counted(tmp_path: Path, size: int, most: int) -> None:
    """While nothing can be written, so many requests and bytes wait; the others are dropped, and all are counted."""
    counted: Counter[str] = Counter()
    go_on = threading.Event()
    files = LogFiles(tmp_path, Limits(2**30, 3600.0, 2**31))
    log = RequestLog(files, Columns(), lambda model: 1.0, lambda model, status, count: counted.update({status: count}))
    for _ in range(most + 1000):
        log.note(Asked(size, go_on))
    go_on.set()
    log.close()
    assert counted == {"OK": most, "RESOURCE_EXHAUSTED": 1000}
    assert len(list(read_records(log_files(tmp_path)[0]))) == counted["OK"]


def test_a_directory_that_is_gone_costs_the_log_alone(
    tmp_path: Path, tiny_model: TinyModel, model_server: ModelServer
) -> None:
    """Where the log cannot be written, requests are answered all the same, and counted as not kept."""
    tiny_model(tmp_path / "tiny", 1)
    directory = tmp_path / "log"
    server = model_server(
        model_name="tiny", model_base_path=str(tmp_path / "tiny"), request_log_directory=directory,
        request_log_sampling_rate=1.0,
    )  # fmt: skip
    directory.rmdir()
    directory.write_text("a file")
    ask(server, times=3)
    server.stop()
    assert 'request_log_count{model_name="tiny",status_code="INTERNAL"} 3' in server.data_plane.metrics_page()
