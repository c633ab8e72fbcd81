"""
Reads the JSON of a request: the name of the signature, and the values or examples for it.

Nothing here needs TensorFlow until there are examples, so that a process of its own can begin to read at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import orjson

from serving.protocol.errors import InvalidRequest
from serving.protocol.signature import DEFAULT_SIGNATURE, Signature, choose_signature
from serving.protocol.tensors import Array
from serving.rest.json_dialect import dump, parse
from serving.rest.json_inputs import read_inputs

PredictBody = tuple[str, dict[str, Array], bool]
"""The name of the signature, the arrays by input, and whether they came in row form."""


def read_body(content: bytes) -> tuple[dict[str, Any], str]:
    """
    The JSON object in a request, and the name of the signature in it.

    Raises:
        InvalidRequest: There is no object, or the name is not a string.
    """
    body = parse(content)
    if not isinstance(body, dict):
        raise InvalidRequest(f"JSON Value: {dump(body)} Is not object")
    signature_name = body.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise InvalidRequest(
            f"JSON Value: {dump(body)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return body, signature_name


def read_plain_rows(content: bytes) -> Array | None:
    """
    The values of a predict in row form that holds only lists of decimals; None for any other.

    Args:
        content: The request as it came.

    Returns:
        float32 of any shape, as `read_predict` gives it for an input of that type.
    """
    if content.count(b":") != 1 or b"true" in content or b"false" in content:
        return None
    try:
        rows = np.array(orjson.loads(content)["instances"])
    except (ValueError, TypeError, KeyError):
        return None
    return rows.astype(np.float32) if rows.dtype.kind == "f" and rows.ndim and rows.size else None


def read_predict(
    content: bytes, signatures: Mapping[str, Signature], double_signatures: Collection[str]
) -> PredictBody:
    """
    What a predict asks for.

    Args:
        content: The request as it came.
        signatures: All that the model has, by name.
        double_signatures: Those whose numbers are to be read to the last bit as TensorFlow Serving reads them.

    Raises:
        InvalidRequest: It is not JSON, the model has no such signature, or a value is not of the type of its input.
        Unsupported: The type of an input cannot come from JSON.
    """
    body, signature_name = read_body(content)
    signature = choose_signature(signatures, signature_name, _no_signature)
    name = signature_name or DEFAULT_SIGNATURE
    if name in double_signatures:
        body = parse(content, fast_numbers=False)
    return name, *read_inputs(body, signature, has_bools=b"true" in content or b"false" in content)


def check_body(content: bytes) -> None:
    """
    Only check that a request can be read: this error comes before that of an unknown model.

    Raises:
        InvalidRequest: It holds no JSON object, or the name of the signature is not a string.
    """
    read_body(content)


def read_example_request(content: bytes) -> tuple[str, bytes]:
    """
    The name of the signature of a classify or regress, and its ``tensorflow.serving.Input`` in bytes.

    Raises:
        InvalidRequest: It is not JSON, or has no examples.
    """
    from serving.runtime import tensorflow_import

    tensorflow_import.prepare()
    from serving.rest.json_examples import read_examples

    body, name = read_body(content)
    return name, read_examples(body).SerializeToString()


def _no_signature(name: str) -> InvalidRequest:
    return InvalidRequest(f'Serving signature name: "{name}" not found in signature def')
