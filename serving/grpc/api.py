"""
Offers the services of TensorFlow Serving, health checks and reflection on a gRPC server.

Every answer to an inference carries the version that gave it in the trailer ``model-version``, every answer to a
request for states the id of the server in ``hotswap-server``.

Source: tensorflow_serving/apis/*.proto
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from serving.access import Access, Role, require
from serving.grpc.health import serving_health
from serving.grpc.model_service import ModelService
from serving.grpc.predict import Predicts
from serving.grpc.prediction_service import PredictionService
from serving.grpc.reflection import Reflection
from serving.grpc.statuses import Handler, handler_of
from serving.inference.data_plane import DataPlane

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]
"""of every gRPC server"""
_PREDICTION_SERVICE, _MODEL_SERVICE = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_ROLES = {"HandleReloadConfigRequest": Role.ADMIN}


class Lasting(Protocol):
    """A service whose calls stay open for as long as the client likes."""

    async def end(self) -> None:
        """End them, as the server is about to stop."""


async def add_services(server: Any, data_plane: DataPlane, access: Access | None = None) -> Sequence[Lasting]:
    """
    Offer ``PredictionService``, ``ModelService``, reflection and, where it is turned on, ``grpc.health.v1.Health``.

    Args:
        access: Who may do what; everybody everything where there is none.

    Returns:
        What has to be ended before the server stops.
    """
    settings, access = data_plane.settings, access or Access()
    predicts = Predicts(data_plane, settings.enable_serialization_as_tensor_content)
    methods = {"Predict": predicts.answer_awaited, **_prediction_methods(data_plane)}
    _add(server, _PREDICTION_SERVICE, methods, access)
    if access.is_open(Role.PREDICT) and hasattr(server, "add_quick_handler"):
        server.add_quick_handler(f"/{_PREDICTION_SERVICE}/Predict", predicts.answer)
    _add(server, _MODEL_SERVICE, _model_methods(data_plane), access)
    services, servicer = [_PREDICTION_SERVICE, _MODEL_SERVICE], await serving_health()
    if settings.enable_grpc_healthcheck_service:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        services.append(health.SERVICE_NAME)
    reflection = Reflection(services, access)
    reflection.add_to(server)
    return servicer, reflection


def _prediction_methods(data_plane: DataPlane) -> dict[str, Handler]:
    service, metrics = PredictionService(data_plane), data_plane.metrics
    return {
        "Classify": handler_of(service.classify, classification_pb2.ClassificationRequest, "Classify", metrics),
        "Regress": handler_of(service.regress, regression_pb2.RegressionRequest, "Regress", metrics),
        "MultiInference": handler_of(service.multi_inference, inference_pb2.MultiInferenceRequest),
        "GetModelMetadata": handler_of(service.metadata, get_model_metadata_pb2.GetModelMetadataRequest),
    }


def _model_methods(data_plane: DataPlane) -> dict[str, Handler]:
    service = ModelService(data_plane)
    return {
        "GetModelStatus": handler_of(service.status, get_model_status_pb2.GetModelStatusRequest),
        "HandleReloadConfigRequest": handler_of(service.reload, model_management_pb2.ReloadConfigRequest),
    }


def _add(server: Any, service: str, methods: dict[str, Handler], access: Access) -> None:
    methods = {name: _guarded(handler, access, _ROLES.get(name, Role.PREDICT)) for name, handler in methods.items()}
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in methods.items()}
    server.add_registered_method_handlers(service, handlers)


def _guarded(handler: Handler, access: Access, role: Role) -> Handler:
    if access.is_open(role):
        return handler

    async def handle(content: bytes, context: Any) -> Any:
        await require(access, context, role)
        return await handler(content, context)

    return handle
