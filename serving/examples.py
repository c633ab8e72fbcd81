"""
What does a signature over ``tf.Example`` records answer?

Classify and Regress feed serialised examples and give the outputs a meaning; MultiInference does several of them in one
run of the graph: every input that their signatures have gets all examples. The checks and their texts are TensorFlow
Serving's.

Source: tensorflow_serving/servables/tensorflow/classifier.cc, regressor.cc, multi_inference.cc
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import text_format
from tensorflow.core.framework import types_pb2

from serving.data_plane import DataPlane
from serving.errors import InvalidRequest, Unsupported
from serving.servable import ServableHandle
from serving.signature import DEFAULT_SIGNATURE, Signature
from serving.tensors import Array, as_bytes, data_type_of
from serving.warmup import NO_SIGNATURE, NO_SIGNATURE_FOR_TASK, serialized_examples

Classifications = list[list[tuple[bytes, float]]]
"""Per example, the classes: label and score."""
Regressions = list[float]
"""Per example, the value."""
Aliases = tuple[str, ...]
"""Names of outputs, as a signature gives them."""

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"

_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"


async def classify(
    data_plane: DataPlane,
    handle: ServableHandle,
    signature_name: str,
    source: Any,
    timeout_seconds: float | None = None,
) -> Classifications:
    """
    The labels and scores for a ``tensorflow.serving.Input``, one list per example.

    Raises:
        InvalidRequest: The signature does not classify, or there are no examples.
        GraphError: TensorFlow refused to run the graph.
    """
    signature = find_signature(handle, signature_name)
    wanted = _checked_classify(data_plane, handle, signature)
    outputs, rows = await _run(data_plane, handle, signature, wanted, source, timeout_seconds, "Classify")
    return _classifications(outputs, rows)


async def regress(
    data_plane: DataPlane,
    handle: ServableHandle,
    signature_name: str,
    source: Any,
    timeout_seconds: float | None = None,
) -> Regressions:
    """
    The values for a ``tensorflow.serving.Input``, one per example.

    Raises:
        InvalidRequest: The signature does not regress, or there are no examples.
        GraphError: TensorFlow refused to run the graph.
    """
    signature = find_signature(handle, signature_name)
    wanted = _checked_regress(data_plane, handle, signature)
    outputs, rows = await _run(data_plane, handle, signature, wanted, source, timeout_seconds, "Regress")
    return _regressions(outputs, rows)


async def multi_inference(
    data_plane: DataPlane, handle: ServableHandle, tasks: Sequence[Any], source: Any
) -> list[tuple[str, Classifications | Regressions]]:
    """
    Signature name and answer of each ``InferenceTask``, all from one run of the graph.

    Raises:
        InvalidRequest: A task asks for another model, an unknown signature, or one twice.
        Unsupported: A task asks for something other than classify or regress.
    """
    asked = _asked(data_plane, handle, tasks)
    found, rows = await _run(data_plane, handle, _union(asked), (), source, None, "MultiInference")
    data_plane.metrics.count_examples(handle.servable.model, rows)
    answers: list[tuple[str, Classifications | Regressions]] = []
    for task, (signature, wanted) in zip(tasks, asked, strict=True):
        outputs = {alias: found[signature.outputs[alias].name] for alias in wanted}
        read = _classifications if task.method_name == CLASSIFY else _regressions
        answers.append((signature.name, read(outputs, rows)))
    return answers


def find_signature(handle: ServableHandle, name: str) -> Signature:
    """
    The signature asked for; an empty name means the default.

    Raises:
        InvalidRequest: The model has none of that name.
    """
    name = name or DEFAULT_SIGNATURE
    signature = handle.servable.signatures.get(name)
    if signature is None:
        raise InvalidRequest(NO_SIGNATURE.format(name=name))
    return signature


def _asked(data_plane: DataPlane, handle: ServableHandle, tasks: Sequence[Any]) -> list[tuple[Signature, Aliases]]:
    """The signature of each task, and which of its outputs the task needs."""
    asked: dict[str, tuple[Signature, Aliases]] = {}
    for task in tasks:
        if not task.model_spec.name:
            raise InvalidRequest("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise InvalidRequest("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in handle.servable.signatures:
            raise InvalidRequest(NO_SIGNATURE_FOR_TASK.format(name=name))
        if name in asked:
            raise InvalidRequest(f"Duplicate evaluation of signature: {name}")
        signature = handle.servable.signatures[name]
        if task.method_name == CLASSIFY:
            asked[name] = signature, _checked_classify(data_plane, handle, signature)
        elif task.method_name == REGRESS:
            asked[name] = signature, _checked_regress(data_plane, handle, signature)
        else:
            raise Unsupported(f"Unsupported signature method_name: {task.method_name}")
    return list(asked.values())


def _union(asked: Sequence[tuple[Signature, Aliases]]) -> Signature:
    """A signature that takes every input and gives every output of these, by tensor name."""
    inputs = [signature.inputs[_INPUTS] for signature, _ in asked]
    outputs = [signature.outputs[alias] for signature, wanted in asked for alias in wanted]
    return Signature(
        name="\n".join(["", *sorted(signature.name for signature, _ in asked)]),
        inputs={info.name: info for info in inputs},
        outputs={info.name: info for info in outputs},
        method_name="",
        defaults={},
    )


async def _run(
    data_plane: DataPlane,
    handle: ServableHandle,
    signature: Signature,
    wanted: Aliases,
    source: Any,
    timeout_seconds: float | None,
    api: str,
) -> tuple[dict[str, Array], int]:
    examples = serialized_examples(source)
    inputs = dict.fromkeys(signature.inputs, examples)
    some = wanted if len(wanted) < len(signature.outputs) else ()
    outputs = await data_plane.run(handle.servable, signature, inputs, some, timeout_seconds, api)
    return outputs, len(examples)


def _checked_classify(data_plane: DataPlane, handle: ServableHandle, signature: Signature) -> Aliases:
    """The outputs that a classify needs of a signature, once it has been found to classify."""
    _check_method(data_plane, signature, "classification", CLASSIFY)
    if len(signature.inputs) != 1:
        raise InvalidRequest("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise InvalidRequest(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise InvalidRequest(f"No classification inputs found in SignatureDef: {_definition(handle, signature)}")
    if _CLASSES not in signature.outputs and _SCORES not in signature.outputs:
        raise InvalidRequest(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {_definition(handle, signature)}"
        )
    return tuple(alias for alias in (_CLASSES, _SCORES) if alias in signature.outputs)


def _checked_regress(data_plane: DataPlane, handle: ServableHandle, signature: Signature) -> Aliases:
    """The outputs that a regress needs of a signature, once it has been found to regress."""
    _check_method(data_plane, signature, "regression", REGRESS)
    if len(signature.inputs) != 1:
        raise InvalidRequest("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise InvalidRequest("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise InvalidRequest(f"No regression inputs found in SignatureDef: {_definition(handle, signature)}")
    if _OUTPUTS not in signature.outputs:
        raise InvalidRequest(f"No regression outputs found in SignatureDef: {_definition(handle, signature)}")
    return (_OUTPUTS,)


def _definition(handle: ServableHandle, signature: Signature) -> str:
    """As text; unlike ``str``, in the order of the keys."""
    text: str = text_format.MessageToString(handle.servable.signature_defs[signature.name])
    return text


def _check_method(data_plane: DataPlane, signature: Signature, kind: str, method: str) -> None:
    if data_plane.settings.enable_signature_method_name_check and signature.method_name != method:
        raise InvalidRequest(f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}")


def _classifications(outputs: dict[str, Array], rows: int) -> Classifications:
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    for name, array, dtype in ((_CLASSES, classes, types_pb2.DT_STRING), (_SCORES, scores, types_pb2.DT_FLOAT)):
        if array is None:
            continue
        if array.ndim != 2:
            raise InvalidRequest(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
        if data_type_of(array.dtype) != dtype:
            expected = types_pb2.DataType.Name(dtype)
            raise InvalidRequest(f"Expected {name} Tensor of {expected}. Got: {_type(array)}")
        if len(array) != rows:
            raise InvalidRequest(f"Expected {name} output batch size of {rows}. Got: {len(array)}")
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise InvalidRequest(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    labels = _filled(classes, scores, b"")
    values = _filled(scores, classes, 0.0)
    return [
        [(as_bytes(label), value) for label, value in zip(*row, strict=True)]
        for row in zip(labels, values, strict=True)
    ]


def _filled(array: Array | None, other: Array | None, default: Any) -> list[list[Any]]:
    """The rows of an output, or rows of defaults of the other one's shape."""
    if array is None:
        assert other is not None
        return [[default] * other.shape[1] for _ in other]
    rows: list[list[Any]] = array.tolist()
    return rows


def _regressions(outputs: dict[str, Array], rows: int) -> Regressions:
    array = outputs[_OUTPUTS]
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise InvalidRequest(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(array)}"
        )
    if len(array) != rows:
        raise InvalidRequest(f"Input batch size did not match output batch size: {rows} vs. {len(array)}")
    if array.dtype != np.float32:
        raise InvalidRequest(f"Expected output Tensor of DT_FLOAT.  Got: {_type(array)}")
    values: list[float] = array.reshape(-1).tolist()
    return values


def _shape(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _type(array: Array) -> str:
    return str(types_pb2.DataType.Name(data_type_of(array.dtype)))
