"""Our messages have TensorFlow Serving's numbers, and its configuration files are read as it reads them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tensorflow.core.framework.tensor_pb2 import TensorProto

from serving.inference.monitoring import DEFAULT_PATH, read_metrics_path
from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import InvalidRequest
from serving.protocol.tensors import decode, encode, is_packed
from serving.runtime.batching_limits import BatchingLimits, read_batching_limits

TEXT_ONLY = {"PrometheusConfig", "MonitoringConfig", "BatchingParameters", "SSLConfig"}


@pytest.fixture(scope="module")
def originals() -> dict[str, Descriptor]:
    """TensorFlow Serving's messages by name without package, those they use included."""
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        model_management_pb2,
        predict_pb2,
    )

    found: dict[str, Descriptor] = {}

    def add(message: Descriptor) -> None:
        name = _local_name(message)
        if name not in found:
            found[name] = message
            for field in message.fields:
                if field.message_type:
                    add(field.message_type)

    modules = [classification_pb2, inference_pb2, predict_pb2]
    for module in [*modules, get_model_metadata_pb2, get_model_status_pb2, model_management_pb2]:
        for message in module.DESCRIPTOR.message_types_by_name.values():
            add(message)
    return found


def test_messages_have_the_numbers_of_tensorflow_serving(originals: dict[str, Descriptor]) -> None:
    """Each field has the name, number and type that it has in TensorFlow Serving, but for labels of any bytes."""
    ours = {
        (name, *_wire_form(field))
        for name, message in _messages(wire.DESCRIPTOR.message_types_by_name.values())
        if name.split(".")[0] not in TEXT_ONLY and not name.startswith("Packed")
        for field in message.fields
    }
    theirs = {(name, *_wire_form(field)) for name, message in originals.items() for field in message.fields}
    assert ours
    assert {field[:3] for field in ours - theirs} == {("Class", "label", 1)}


def test_enums_have_the_numbers_of_tensorflow_serving(originals: dict[str, Descriptor]) -> None:
    """Each value of an enum has the number that it has in TensorFlow Serving."""
    for name, field in [("TensorProto", "dtype"), ("ModelVersionStatus", "state"), ("ModelConfig", "model_type")]:
        ours = _numbers(wire.DESCRIPTOR.message_types_by_name[name].fields_by_name[field])
        theirs = _numbers(originals[name].fields_by_name[field])
        assert ours.items() <= theirs.items()


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, -2.0], [3.0, 4.25]], np.float32),
        np.array([1e300, -0.0]),
        np.array([1 + 2j, 3 - 4j], np.complex64),
        np.array([1 + 2j], np.complex128),
        np.array([1, -1, 2**40]),
        np.array([3, 4], np.uint8),
        np.array([0.5, 1.5], np.float16),
        np.array([b"a", b"", b"\xff"], object),
        np.array([], np.float32),
        np.float32(2.5).reshape(()),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
@pytest.mark.parametrize("as_content", [False, True])
def test_packed_tensors_are_the_same_on_the_wire(array: Any, as_content: bool) -> None:
    """A packed tensor has the bytes of a plain one, and is read as the same array."""
    plain, packed = TensorProto(), wire.PackedTensorProto()
    encode(array, plain, as_content)
    encode(array, packed, as_content)
    content = plain.SerializeToString()
    assert packed.SerializeToString() == content
    read = wire.PackedTensorProto.FromString(content)
    assert is_packed(read)
    np.testing.assert_array_equal(decode(read), array)
    assert decode(read).dtype == array.dtype


@pytest.mark.parametrize(
    "field",
    [
        b"\x2d" + struct.pack("<f", 1.5) + b"\x2d" + struct.pack("<f", 2.5),  # float_val value by value
        b"\x2a\x03abc",  # three bytes are no floats
        b"\x18\x01",  # version_number
    ],
    ids=["value by value", "cut off", "another field"],
)
def test_what_is_not_packed_is_reported(field: bytes) -> None:
    """A tensor that the packed message cannot hold is read as a plain one."""
    assert not is_packed(wire.PackedTensorProto.FromString(b"\x08\x01" + field))


def test_packed_values_may_come_in_pieces() -> None:
    """The values of a tensor may be packed in several pieces, as protobuf allows."""
    pieces = [b"\x2a\x04" + struct.pack("<f", value) for value in (1.5, 2.5)]
    content = b"\x08\x01\x12\x04\x12\x02\x08\x02" + b"".join(pieces)
    read = wire.PackedTensorProto.FromString(content)
    assert is_packed(read)
    np.testing.assert_array_equal(decode(read), [1.5, 2.5])


SPLITTING = "enable_large_batch_splitting { value: true }"


def test_batching_parameters(tmp_path: Path) -> None:
    """Of a batching file the sizes are taken; the rest is known."""
    file = tmp_path / "batching.txt"
    file.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 100 }\n"
        "num_batch_threads { value: 2 } thread_pool_name { value: 'pool' } pad_variable_length_inputs: true\n"
        "allowed_batch_sizes: [4, 8] enable_large_batch_splitting { value: true }"
    )
    assert read_batching_limits(file) == BatchingLimits(8, allowed_sizes=(4, 8))
    file.write_text("# all as it is by default\n")
    assert read_batching_limits(file) == BatchingLimits()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 8", "Invalid protobuf file"),
        ("max_batch_size { value: many }", "Invalid protobuf file"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        (f"{SPLITTING} max_enqueued_batches {{ value: 0 }}", "max_enqueued_batches must be positive; was 0"),
        (f"{SPLITTING} max_execution_batch_size {{ value: 1001 }}", "must be at least max_execution_batch_size"),
        ("", "; Invalid argument"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "last entry was 4; expected 8"),
    ],
)
def test_batching_parameters_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """A batching file that is not one, or contradicts itself, is refused."""
    file = tmp_path / "batching.txt"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match=message):
        read_batching_limits(file)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("prometheus_config { enable: true path: '/metrics' }", "/metrics"),
        ("prometheus_config { enable: true }", DEFAULT_PATH),
        ("prometheus_config { path: '/metrics' }", None),
        ("# nothing", None),
    ],
)
def test_metrics_path(tmp_path: Path, text: str, path: str | None) -> None:
    """The metrics page has a path only where it is turned on."""
    file = tmp_path / "monitoring.txt"
    file.write_text(text)
    assert read_metrics_path(file) == path


def test_monitoring_config_that_is_refused(tmp_path: Path) -> None:
    """A monitoring file that is not one is refused by name."""
    file = tmp_path / "monitoring.txt"
    file.write_text("prometheus { }")
    with pytest.raises(InvalidRequest, match=r"monitoring\.txt"):
        read_metrics_path(file)


def _messages(messages: Any) -> list[tuple[str, Descriptor]]:
    found = [(_local_name(message), message) for message in messages]
    return found + [each for message in messages for each in _messages(message.nested_types)]


def _wire_form(field: FieldDescriptor) -> tuple[Any, ...]:
    """What decides how a field is written; an enum is written as its number."""
    kind = FieldDescriptor.TYPE_INT32 if field.type == FieldDescriptor.TYPE_ENUM else field.type
    message = _local_name(field.message_type) if field.message_type else None
    return field.name, field.number, kind, message, field.is_repeated, field.is_packed


def _numbers(field: FieldDescriptor) -> dict[str, int]:
    assert field.enum_type is not None
    return {value.name: value.number for value in field.enum_type.values}


def _local_name(message: Descriptor) -> str:
    return message.full_name.removeprefix("hotswap.wire.").removeprefix("tensorflow.").removeprefix("serving.")
