"""
Checks that a request asks for what a signature offers.

Source: tensorflow_serving/servables/tensorflow/predict_util.cc, tensorflow/cc/saved_model/util.cc
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from serving.protocol.errors import InvalidRequest
from serving.protocol.signature import Signature
from serving.protocol.tensors import Array, TooManyDimensions, decode

_NOTHING: Array = np.empty(0)


def decode_inputs(signature: Signature, protos: Mapping[str, Any]) -> dict[str, Array]:
    """
    The arrays in the ``TensorProto`` messages of a predict, by alias.

    Raises:
        InvalidRequest: There are too few or too many, which is checked first, or one of the signature's is no tensor.
    """
    inputs: dict[str, Array] = {}
    for alias, proto in protos.items():
        try:
            inputs[alias] = decode(proto)
        except ValueError as exc:
            if alias in signature.inputs:
                _check_count(signature, protos)
                raise unreadable(alias, exc) from exc
            inputs[alias] = _NOTHING  # whose name is refused
    return inputs


def unreadable(alias: str, error: ValueError) -> InvalidRequest:
    """Why an input holds no tensor that can be fed."""
    if isinstance(error, TooManyDimensions):
        return InvalidRequest(f"Input {alias!r} has {error}")
    return InvalidRequest(f"tensor parsing error: {alias}")


def with_defaults(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """
    The inputs with the signature's defaults added.

    Raises:
        InvalidRequest: A name is missing, or is none of the signature's.
    """
    _check_count(signature, inputs)
    missing = [alias for alias in signature.inputs if alias not in inputs]
    for alias in missing:
        if alias not in signature.defaults:
            raise InvalidRequest(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and "
                f"no default value provided. Inputs expected to be in the request {_braced(inputs)}, or default input "
                f"alias set: {','.join(sorted(signature.defaults))}"
            )
    if set(inputs) - set(signature.inputs):
        used = ",".join(sorted(set(inputs) & set(signature.inputs)))
        raise InvalidRequest(
            f"Inputs contains invalid name. Used request inputs: {used}, request input: {','.join(sorted(inputs))}"
        )
    return {**inputs, **{alias: signature.defaults[alias] for alias in missing}}


def _check_count(signature: Signature, inputs: Collection[str]) -> None:
    least = 0 if signature.defaults else len(signature.inputs)
    if not least <= len(inputs) <= len(signature.inputs):
        raise InvalidRequest(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
            f"len({_braced(inputs)}) != len({_braced(signature.inputs)}). "
            f"Sent extra: {_braced(inputs - signature.inputs.keys())}. "
            f"Missing but required: {_braced(signature.inputs.keys() - inputs)}."
        )


def check_outputs(signature: Signature, wanted: Sequence[str]) -> None:
    seen: set[str] = set()
    for alias in wanted:
        if alias not in signature.outputs:
            expected = _braced(signature.outputs)
            raise InvalidRequest(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {expected}."
            )
        if alias in seen:
            raise InvalidRequest(f"duplicate output tensor alias: {alias}")
        seen.add(alias)


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
