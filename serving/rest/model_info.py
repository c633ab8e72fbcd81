"""
Answers requests for the states and the signatures of a model, in the JSON of protobuf's C++ library.

Source: tensorflow_serving/model_servers/http_rest_api_handler.cc
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from google.protobuf import json_format

from serving.inference.data_plane import DataPlane
from serving.inference.replies import signature_map, status_response
from serving.protocol.model_spec import ModelSpec
from serving.rest.http_messages import Response


def status_page(data_plane: DataPlane, spec: ModelSpec) -> Response:
    """The states of the versions of a model."""
    return Response(HTTPStatus.OK, f"{_proto_json(status_response(data_plane, spec))}\n".encode())


def metadata_page(data_plane: DataPlane, spec: ModelSpec) -> Response:
    """The signatures of a version."""
    with data_plane.models.acquire(spec) as handle:
        model_spec = {"name": handle.servable.model, "version": str(handle.version), "signature_name": ""}
        text = (
            f'{{\n"model_spec":{_indented(model_spec)}\n,\n'
            f'"metadata": {{"signature_def": {_proto_json(signature_map(handle))}\n}}\n}}\n'
        )
        return Response(HTTPStatus.OK, text.encode())


def _proto_json(message: Any) -> str:
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _indented(_in_order(fields, message.DESCRIPTOR))


def _in_order(value: Any, message: Any) -> Any:
    """A message with its fields in the order of their numbers; `message` describes it, None what is no message."""
    if message is None:
        return value
    if isinstance(value, list):
        return [_in_order(each, message) for each in value]
    if message.GetOptions().map_entry:
        values = message.fields_by_name["value"].message_type
        return {key: _in_order(each, values) for key, each in value.items()}
    fields = sorted(message.fields, key=lambda field: field.number)
    return {field.name: _in_order(value[field.name], field.message_type) for field in fields if field.name in value}


def _indented(value: Any) -> str:
    text = json.dumps(_without_fractions(value), indent=1, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _without_fractions(value: Any) -> Any:
    """The value with whole floats as integers, as protobuf's C++ library prints them."""
    if isinstance(value, dict):
        return {key: _without_fractions(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_fractions(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
