"""
Reads the examples in a JSON request as ``tf.Example`` records.

Source: tensorflow_serving/util/json_tensor.cc
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import input_pb2

from serving.protocol.errors import InvalidRequest
from serving.rest.json_dialect import dump, members, type_name
from serving.rest.json_inputs import decode_base64, is_base64

_LISTS = {"bytes": "bytes_list", "float": "float_list", "int64": "int64_list"}
_INT64_MAX = 2**63 - 1


def read_examples(body: Mapping[str, Any]) -> Any:
    """
    The ``tensorflow.serving.Input`` of a classify or regress request.

    Raises:
        InvalidRequest: There are no examples, or a feature is no list of one kind of value.
    """
    source = input_pb2.Input()
    target = source.example_list
    if "context" in body:
        target = source.example_list_with_context
        target.context.CopyFrom(_example(body["context"]))
    if "examples" not in body:
        raise InvalidRequest(
            f"JSON Value: {dump(body)} When method is classify, key 'examples' is expected and was not found"
        )
    listed = body["examples"]
    if not isinstance(listed, list):
        raise InvalidRequest(f"JSON Value: {dump(body)} Expecting 'examples' value to be an list/array")
    if not listed:
        raise InvalidRequest(f"JSON Value: {dump(body)} 'examples' value is an empty array")
    target.examples.extend(_example(each) for each in listed)
    return source


def _example(value: Any) -> Any:
    if not isinstance(value, dict):
        raise InvalidRequest(f"Example must be JSON object but got JSON {type_name(value)}")
    example = example_pb2.Example()
    for name, content in members(value):
        feature = feature_pb2.Feature()
        _fill(feature, name, content if isinstance(content, list) else [content])
        if _is_text(name):  # no model can ask for others
            example.features.feature[name].CopyFrom(feature)
    return example


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fill(feature: Any, name: str, values: list[Any]) -> None:
    expected = ""
    for value in values:
        kind = _kind(name, value)
        expected = expected or kind
        if kind != expected:
            raise InvalidRequest(f"Unexpected element type in feature: {name} expecting type: {expected}")
        getattr(feature, _LISTS[kind]).value.append(_content(name, value))


def _kind(name: str, value: Any) -> str:
    if isinstance(value, str) or is_base64(value):
        return "bytes"
    if isinstance(value, int):
        return "int64"
    if isinstance(value, float):
        return "float"
    raise InvalidRequest(f"Feature: {name} has element with unexpected JSON type: {type_name(value)}")


def _content(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return decode_base64(value["b64"])
    if isinstance(value, float):
        return value
    if value > _INT64_MAX:
        raise InvalidRequest(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    return int(value)
