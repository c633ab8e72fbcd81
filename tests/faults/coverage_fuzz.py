"""
What in a request leads where nothing has led before?

A program for atheris: from the recorded requests it makes others, and keeps those that reach new lines of the code that
reads them. It ends with an error where that code raises what it does not say it raises, or where two ways to read the
same request differ.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris
import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.python.eager import context
from tensorflow.python.framework import dtypes, errors_impl
from tensorflow.python.ops import gen_parsing_ops
from tensorflow_serving.apis import predict_pb2

with atheris.instrument_imports(include=["serving"]):
    from serving.grpc.predict_requests import PredictRequests
    from serving.protocol import wire_pb2 as wire
    from serving.protocol.errors import ServingError
    from serving.protocol.signature import DEFAULT_SIGNATURE, Signature, TensorInfo
    from serving.protocol.tensors import MAX_NUMPY_DIMENSIONS, Array, decode, dtype_of, is_packed
    from serving.rest.json_dialect import parse
    from serving.rest.json_examples import read_examples
    from serving.rest.json_outputs import write_columns, write_rows
    from serving.rest.json_requests import read_body, read_plain_rows, read_predict

from tests.conformance.cases import content, read_cases

MAX_SEED_LENGTH = 5000
MAX_VALUES = 2**16
_DIGITS = re.compile(rb"\d+")
_ROUNDING = 2.0**-53
"""what RapidJSON may be off after each digit and each power of ten, as a part of the number"""
_ZERO_WITH_A_HUGE_EXPONENT = re.compile(rb"0[eE]\+?0*\d{3}")  # is no number for RapidJSON, and zero for orjson


def _takes(*types: int) -> Signature:
    inputs = {f"x{number}": TensorInfo(f"x{number}:0", each, None) for number, each in enumerate(types)}
    return Signature(name="of " + "-".join(map(str, types)), inputs=inputs, outputs={}, method_name="", defaults={})


FLOATS = _takes(types_pb2.DT_FLOAT)
SIGNATURES = [
    FLOATS,
    *map(_takes, (types_pb2.DT_INT64, types_pb2.DT_UINT64, types_pb2.DT_UINT8, types_pb2.DT_BOOL)),
    _takes(types_pb2.DT_DOUBLE, types_pb2.DT_STRING),
]


def json_request(data: bytes) -> None:
    """A REST body is read or refused; what is read quickly is what is read with care."""
    try:
        body, signature_name = read_body(data)
    except ServingError:
        return
    if not _ZERO_WITH_A_HUGE_EXPONENT.search(data):
        digits = max(map(len, _DIGITS.findall(data)), default=0)
        assert _is_same(body, parse(data, fast_numbers=False), (digits + 4) * _ROUNDING), data
    for signature in SIGNATURES:
        has_doubles = any(info.dtype == types_pb2.DT_DOUBLE for info in signature.inputs.values())
        try:
            name = signature_name or DEFAULT_SIGNATURE
            _, inputs, by_rows = read_predict(data, {name: signature}, {name} if has_doubles else ())
        except ServingError:
            assert signature is not FLOATS or signature_name or read_plain_rows(data) is None, data
            continue
        plain = read_plain_rows(data) if signature is FLOATS else None
        if plain is not None:
            assert by_rows, data
            _assert_same(plain, inputs["x0"], data)
        for write in (write_rows, write_columns):
            with suppress(ServingError):
                write(inputs)
    with suppress(ServingError):
        read_examples(body)


def predict_message(data: bytes) -> None:
    """A ``PredictRequest`` is read or refused; the second time, when its frame is known, it is read as the first."""
    requests = PredictRequests()
    try:
        if not all(map(_is_small, predict_pb2.PredictRequest.FromString(data).inputs.values())):
            return
        first, second = requests.FromString(data), requests.FromString(data)
    except DecodeError:
        return
    if first.inputs is None:
        assert second.inputs is None, data
        return
    assert second.inputs is not None, data
    for alias, array in first.inputs.items():
        _assert_same(array, second.inputs[alias], data)


def tensor_message(data: bytes) -> None:
    """A ``TensorProto`` is what TensorFlow finds in it, or refused where TensorFlow refuses it."""
    try:
        proto = tensor_pb2.TensorProto.FromString(data)
    except DecodeError:
        return
    shape, dtype = proto.tensor_shape, dtype_of(proto.dtype)
    if dtype is None or shape.unknown_rank or len(shape.dim) > MAX_NUMPY_DIMENSIONS:
        return
    if not _is_small(proto):
        return
    with context.eager_mode():
        try:
            expected = gen_parsing_ops.parse_tensor(data, dtypes.as_dtype(proto.dtype)).numpy()
        except errors_impl.OpError:
            expected = None
    if isinstance(expected, bytes):
        expected = np.array(expected, object)
    if expected is not None and dtype.names:
        expected = expected.view(dtype)  # an eager tensor gives plain integers
    packed = wire.PackedTensorProto.FromString(data)
    for message in [proto, packed] if is_packed(packed) else [proto]:
        try:
            found = decode(message)
        except ValueError:
            assert expected is None, data
        else:
            assert expected is not None, data
            _assert_same(found, expected, data)


def _is_small(tensor: Any) -> bool:
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    return all(abs(size) <= MAX_VALUES for size in sizes) and math.prod(sizes) <= MAX_VALUES


def _is_same(one: Any, other: Any, rounding: float) -> bool:
    """Are these the same JSON values, but for so large a part of each double?"""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key], rounding) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(_is_same(*both, rounding) for both in zip(one, other, strict=True))
    if isinstance(one, float):
        return isinstance(other, float) and (
            math.isclose(one, other, rel_tol=rounding) or (one != one and other != other)
        )
    return type(one) is type(other) and one == other


def _assert_same(one: Array, other: Array, data: bytes) -> None:
    assert (one.shape, one.dtype) == (other.shape, other.dtype), data
    flat, other_flat = one.ravel(), other.ravel()
    if one.dtype == object:
        assert flat.tolist() == other_flat.tolist(), data
    else:
        assert flat.tobytes() == other_flat.tobytes(), data


def _bodies() -> Iterator[bytes]:
    return (content(case.request) for case in read_cases("rest"))


def _messages() -> Iterator[bytes]:
    for case in read_cases("grpc"):
        if case.request["method"].endswith("/Predict"):
            yield content(case.request, "message")


def _tensors() -> Iterator[bytes]:
    for message in _messages():
        try:
            request = predict_pb2.PredictRequest.FromString(message)
        except DecodeError:
            continue
        yield from (tensor.SerializeToString() for tensor in request.inputs.values())


TARGETS = {
    "json_request": (json_request, _bodies),
    "predict_message": (predict_message, _messages),
    "tensor_message": (tensor_message, _tensors),
}


def fuzz(target: str, folder: Path, program: str, options: list[str]) -> None:
    """Look for requests that lead astray; ends the process."""
    check, seeds = TARGETS[target]
    folder.mkdir()
    for number, seed in enumerate(seeds()):
        if len(seed) <= MAX_SEED_LENGTH:
            (folder / str(number)).write_bytes(seed)
    np.seterr(over="ignore")  # as in the server
    atheris.Setup([program, str(folder), f"-artifact_prefix={folder}/", *options], check)
    atheris.Fuzz()


def main() -> None:
    """``python -m tests.faults.coverage_fuzz FOLDER [libFuzzer's options]``; FOLDER is for what it finds."""
    program, folder, *options = sys.argv
    for target in TARGETS:
        child = os.fork()  # each needs a process, and to import all this takes longer than to fuzz
        if not child:
            fuzz(target, Path(folder) / target, program, options)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{target} was led astray")


if __name__ == "__main__":
    main()
