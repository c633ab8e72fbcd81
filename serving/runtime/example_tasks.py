"""
Checks what a request over ``tf.Example`` records needs of a signature, and reads what its outputs mean.

The checks and their texts are TensorFlow Serving's.

Source: tensorflow_serving/servables/tensorflow/classifier.cc, regressor.cc, multi_inference.cc
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import text_format
from tensorflow.core.framework import types_pb2

from serving.protocol.errors import InvalidRequest, Unsupported
from serving.protocol.signature import Signature, choose_signature
from serving.protocol.tensors import Array, as_bytes, data_type_of
from serving.runtime.servable import Servable

Classifications = list[list[tuple[bytes, float]]]
"""Per example, the classes: label and score."""
Regressions = list[float]
"""Per example, the value."""
Aliases = tuple[str, ...]
"""Names of outputs, as a signature gives them."""

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"

_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"


def serialized_examples(source: Any) -> Array:
    """
    The examples of a ``tensorflow.serving.Input`` as one string per row.

    Raises:
        InvalidRequest: There are none.
    """
    if source.WhichOneof("kind") == "example_list_with_context":
        listed = source.example_list_with_context
        context = listed.context.SerializeToString()
        rows = [context + example.SerializeToString() for example in listed.examples]
    else:
        rows = [example.SerializeToString() for example in source.example_list.examples]
    if not rows:
        raise InvalidRequest("Input is empty.")
    return np.array(rows, dtype=object)


def find_signature(servable: Servable, name: str) -> Signature:
    """
    The signature asked for; an empty name means the default.

    Raises:
        InvalidRequest: The model has none of that name.
    """
    return choose_signature(servable.signatures, name, _no_signature)


def _no_signature(name: str) -> InvalidRequest:
    return InvalidRequest(f"No signature was found with the name: {name}")


def _no_signature_for_task(name: str) -> InvalidRequest:
    return InvalidRequest(f"Requested signature not found in model graph: {name}")


def asked_of(servable: Servable, tasks: Sequence[Any], check_methods: bool = False) -> list[tuple[Signature, Aliases]]:
    """The signature of each task, and which of its outputs the task needs."""
    found: dict[str, tuple[Signature, Aliases]] = {}
    for task in tasks:
        if not task.model_spec.name:
            raise InvalidRequest("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise InvalidRequest("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        signature = choose_signature(servable.signatures, task.model_spec.signature_name, _no_signature_for_task)
        name = signature.name
        if name in found:
            raise InvalidRequest(f"Duplicate evaluation of signature: {name}")
        if task.method_name == CLASSIFY:
            found[name] = signature, checked_classify(servable, signature, check_methods)
        elif task.method_name == REGRESS:
            found[name] = signature, checked_regress(servable, signature, check_methods)
        else:
            raise Unsupported(f"Unsupported signature method_name: {task.method_name}")
    return list(found.values())


def together(asked: Sequence[tuple[Signature, Aliases]]) -> Signature:
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


def answers_of(
    tasks: Sequence[Any], asked: Sequence[tuple[Signature, Aliases]], found: Mapping[str, Array], rows: int
) -> list[tuple[str, Classifications | Regressions]]:
    """Signature name and answer of each task, from what a run of them `together` has found."""
    answers: list[tuple[str, Classifications | Regressions]] = []
    for task, (signature, wanted) in zip(tasks, asked, strict=True):
        outputs = {alias: found[signature.outputs[alias].name] for alias in wanted}
        read = classifications if task.method_name == CLASSIFY else regressions
        answers.append((signature.name, read(outputs, rows)))
    return answers


def output_filter(signature: Signature, wanted: Aliases) -> Aliases:
    """What to ask a run for to get these outputs; nothing where that is all of them."""
    return wanted if len(wanted) < len(signature.outputs) else ()


def checked_classify(servable: Servable, signature: Signature, check_method: bool = False) -> Aliases:
    """The outputs that a classify needs of a signature, once it has been found to classify."""
    if check_method:
        _check_method(signature, "classification", CLASSIFY)
    if len(signature.inputs) != 1:
        raise InvalidRequest("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise InvalidRequest(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise InvalidRequest(f"No classification inputs found in SignatureDef: {_definition(servable, signature)}")
    if _CLASSES not in signature.outputs and _SCORES not in signature.outputs:
        raise InvalidRequest(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {_definition(servable, signature)}"
        )
    return tuple(alias for alias in (_CLASSES, _SCORES) if alias in signature.outputs)


def checked_regress(servable: Servable, signature: Signature, check_method: bool = False) -> Aliases:
    """The outputs that a regress needs of a signature, once it has been found to regress."""
    if check_method:
        _check_method(signature, "regression", REGRESS)
    if len(signature.inputs) != 1:
        raise InvalidRequest("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise InvalidRequest("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise InvalidRequest(f"No regression inputs found in SignatureDef: {_definition(servable, signature)}")
    if _OUTPUTS not in signature.outputs:
        raise InvalidRequest(f"No regression outputs found in SignatureDef: {_definition(servable, signature)}")
    return (_OUTPUTS,)


def _definition(servable: Servable, signature: Signature) -> str:
    """As text; unlike ``str``, in the order of the keys."""
    text: str = text_format.MessageToString(servable.signature_defs[signature.name])
    return text


def _check_method(signature: Signature, kind: str, method: str) -> None:
    if signature.method_name != method:
        raise InvalidRequest(f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}")


def classifications(outputs: dict[str, Array], rows: int) -> Classifications:
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


def regressions(outputs: dict[str, Array], rows: int) -> Regressions:
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
