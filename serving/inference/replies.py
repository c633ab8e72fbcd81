"""The messages that both protocols answer with, whatever they are written as."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.inference.data_plane import DataPlane
from serving.protocol.model_spec import ModelSpec
from serving.runtime.servable import ServableHandle


def status_response(data_plane: DataPlane, spec: ModelSpec) -> Any:
    """
    The ``GetModelStatusResponse`` for a model.

    Raises:
        ServableNotFound: The server has never seen this model or version.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in data_plane.models.status(spec):
        each = response.model_version_status.add(version=status.version, state=int(status.state))
        each.status.error_code = status.code.value[0]
        each.status.error_message = status.message
    return response


def signature_map(handle: ServableHandle) -> Any:
    """The ``SignatureDefMap`` of a servable."""
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in handle.servable.signature_defs.items():
        found.signature_def[name].CopyFrom(definition)
    return found
