"""Asks a model server over REST or gRPC; never imports TensorFlow."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients.client import Credentials, PredictClient
    from clients.grpc_client import GrpcClient
    from clients.rest_client import RestClient

__all__ = ["Credentials", "GrpcClient", "PredictClient", "RestClient"]

_MODULES = {
    "Credentials": "client",
    "GrpcClient": "grpc_client",
    "PredictClient": "client",
    "RestClient": "rest_client",
}


def __getattr__(name: str) -> Any:
    """Import a client when it is first named."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
