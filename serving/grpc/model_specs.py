"""
Reads and fills the ``ModelSpec`` of a message.

Source: tensorflow_serving/apis/model.proto
"""

from __future__ import annotations

from typing import Any

from serving.protocol.errors import InvalidRequest
from serving.protocol.model_spec import ModelSpec
from serving.runtime.servable import Servable


def require_spec(request: Any) -> None:
    """Refuse a request without a spec."""
    if not request.HasField("model_spec"):
        raise InvalidRequest("Missing ModelSpec")


def required_spec(request: Any) -> ModelSpec:
    """The spec of a request; one without a spec, or without a name in it, is refused."""
    require_spec(request)
    return named_spec(request)


def named_spec(request: Any) -> ModelSpec:
    """The spec of a request, or of a task in one; one without a name is refused."""
    if not request.model_spec.name:
        raise InvalidRequest("ModelSpec has no name specified.")
    return spec_of(request.model_spec)


def spec_of(message: Any) -> ModelSpec:
    """What a ``ModelSpec`` message asks for."""
    choice = message.WhichOneof("version_choice")
    if choice == "version":
        return ModelSpec(message.name, message.version.value)
    if choice == "version_label":
        return ModelSpec(message.name, None, message.version_label)
    return ModelSpec(message.name)


def fill_spec(message: Any, servable: Servable, signature_name: str) -> None:
    """Name the servable and the signature that gave an answer."""
    message.name = servable.model
    message.version.value = servable.version
    message.signature_name = signature_name
