"""
How is the data plane spoken to over gRPC?

Each method decodes its request, asks the data plane, and encodes the answer; what goes wrong becomes a status. Every
answer to an inference carries the version that gave it in the trailer ``model-version``, that to a question for states
the server in ``hotswap-server``.

Source: tensorflow_serving/apis/*.proto, tensorflow_serving/model_servers/prediction_service_impl.cc
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from serving.access import BearerToken, admit
from serving.grpc.predict import MAX_KEPT_BYTES, PredictRequest, PredictRequests
from serving.grpc.reflection import Reflection
from serving.inference import examples
from serving.inference.batching import Result
from serving.inference.data_plane import DataPlane
from serving.inference.monitoring import Metrics
from serving.inference.replies import signature_map, status_response
from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import FailedPrecondition, InvalidRequest, ServingError
from serving.protocol.model_spec import ModelSpec
from serving.protocol.signature import DEFAULT_SIGNATURE, Signature, choose_signature
from serving.protocol.tensors import Array, data_type_of, encode, varint
from serving.runtime.call import Call
from serving.runtime.example_tasks import CLASSIFY
from serving.runtime.requested import decode_inputs
from serving.runtime.servable import Servable, ServableHandle
from serving.settings import ServerSettings

if TYPE_CHECKING:
    from serving.grpc.quick_grpc import QuickCall

MAX_MESSAGE_BYTES = 1024
MAX_QUICK_BYTES = 65_536
MAX_INLINE_WRITE_BYTES = 2**20
log = logging.getLogger(__name__)

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]
"""of every gRPC server"""
_PREDICTION_SERVICE, _MODEL_SERVICE = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_HEALTH_NAMES = ("", "ModelService", "PredictionService")

SERVER_TRAILER = "hotswap-server"
"""the trailer with the `DataPlane.id`: REST and gRPC of one server tell the same"""

Method = Callable[[Any, Any], Awaitable[Any]]
"""From a request message to an answer, as a message or as its bytes."""
Handler = Callable[[bytes, Any], Awaitable[Any]]


class Lasting(Protocol):
    """A service whose calls stay open for as long as the client likes."""

    async def end(self) -> None:
        """End them, as the server is about to stop."""


async def add_services(
    server: Any, data_plane: DataPlane, settings: ServerSettings, token: BearerToken | None = None
) -> Sequence[Lasting]:
    """
    Offer ``PredictionService``, ``ModelService``, reflection and, where it is turned on, ``grpc.health.v1.Health``.

    Args:
        token: What all requests but health checks must carry.

    Returns:
        What has to be ended before the server stops.
    """
    prediction = _PredictionService(data_plane, settings)
    model = _ModelService(data_plane)
    metrics = data_plane.metrics
    prediction_methods = {
        "Predict": _answered(prediction.predict, prediction.requests, "Predict", metrics),
        "Classify": _answered(prediction.classify, classification_pb2.ClassificationRequest, "Classify", metrics),
        "Regress": _answered(prediction.regress, regression_pb2.RegressionRequest, "Regress", metrics),
        "MultiInference": _answered(prediction.multi_inference, inference_pb2.MultiInferenceRequest),
        "GetModelMetadata": _answered(prediction.metadata, get_model_metadata_pb2.GetModelMetadataRequest),
    }
    model_methods = {
        "GetModelStatus": _answered(model.status, get_model_status_pb2.GetModelStatusRequest),
        "HandleReloadConfigRequest": _answered(model.reload, model_management_pb2.ReloadConfigRequest),
    }
    _add(server, _PREDICTION_SERVICE, prediction_methods, token)
    if token is None and hasattr(server, "add_quick_handler"):
        server.add_quick_handler(f"/{_PREDICTION_SERVICE}/Predict", prediction.predict_soon)
    _add(server, _MODEL_SERVICE, model_methods, token)
    services, servicer = [_PREDICTION_SERVICE, _MODEL_SERVICE], Health()
    for name in _HEALTH_NAMES:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    if settings.enable_grpc_healthcheck_service:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        services.append(health.SERVICE_NAME)
    reflection = Reflection(services, token)
    reflection.add_to(server)
    return servicer, reflection


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # it ships no types
    """``grpc.health.v1.Health``: serving, until `end`."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = asyncio.Event()

    async def end(self) -> None:
        """From now on nothing is serving, and whoever watches is told to go."""
        await self.enter_graceful_shutdown()
        self._ended.set()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802  (the name in health.proto)
        watching = asyncio.create_task(super().Watch(request, context))
        ending = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait([watching, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Server is shutting down")

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  (the name in health.proto)
        if request.service not in _HEALTH_NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return await super().Check(request, context)


class _PredictionService:
    def __init__(self, data_plane: DataPlane, settings: ServerSettings) -> None:
        self.requests = PredictRequests()
        self._data_plane = data_plane
        self._settings = settings

    async def predict(self, request: PredictRequest, context: Any) -> bytes:
        call, arrays = self._bound(request, context)
        outputs = await self._data_plane.submitted(call, arrays)
        if sum(array.nbytes for array in outputs) > MAX_INLINE_WRITE_BYTES:
            return await asyncio.to_thread(self._encoded, call, outputs)
        return self._encoded(call, outputs)

    def predict_soon(self, content: bytes, quick: QuickCall) -> bool:
        """Answer a predict in this turn of the loop; False, with nothing done, for one that is large, slow or wrong."""
        if len(content) > MAX_QUICK_BYTES:
            return False
        started = time.perf_counter()
        try:
            request = self.requests.FromString(content)
            call, arrays = self._bound(request)
        except (ServingError, DecodeError):
            return False
        if not call.is_short(arrays):
            return False
        model, metrics, trailer = request.model_spec.name, self._data_plane.metrics, _trailer(call.servable.version)

        def done(result: Result) -> None:
            try:
                if isinstance(result, Exception):
                    raise result
                response = self._encoded(call, result)
            except ServingError as exc:
                metrics.count_failure(model, exc.code.name)
                quick.fail(exc.code, _cut(exc.message), trailer)
            except Exception as exc:
                log.exception("predict failed model=%s", model)
                quick.fail(grpc.StatusCode.UNKNOWN, f"{type(exc).__name__}: {exc}", trailer)
            else:
                quick.succeed(response, trailer)
                metrics.count_answer(model, "Predict", "GRPC", time.perf_counter() - started)

        self._data_plane.submit(call, arrays, done)
        return True

    def _encoded(self, call: Call, outputs: list[Array]) -> bytes:
        servable, signature_name = call.servable, call.signature.name
        as_content = self._settings.enable_serialization_as_tensor_content
        if len(outputs) == 1:
            array = outputs[0]
            if array.dtype.char in "fd" and array.size:
                alias = call.outputs[0]
                head, tail = _frame(
                    servable.model, servable.version, signature_name, alias, array.dtype, array.shape, as_content
                )
                return b"".join((head, np.ascontiguousarray(array).data, tail))
        response = wire.PackedPredictResponse()
        for alias, array in zip(call.outputs, outputs, strict=True):
            encode(array, response.outputs[alias], as_content)
        _fill_spec(response.model_spec, servable, signature_name)
        return response.SerializeToString()

    def _bound(self, request: PredictRequest, context: Any = None) -> tuple[Call, list[Array]]:
        changes = self._data_plane.models.changes
        before = request.bound(changes)
        if before is not None:
            if context is not None:
                context.set_trailing_metadata(_trailer(before[0].servable.version))
            return before
        message = request.message
        servable = self._find(_required_spec(message), context)
        signature = self._predict_signature(servable, message.model_spec.signature_name)
        inputs = request.inputs
        if inputs is None:
            inputs = decode_inputs(signature, message.inputs)
        call, arrays = self._data_plane.bind(servable, signature, inputs, message.output_filter)
        request.bind(changes, call)
        return call, arrays

    async def classify(self, request: Any, context: Any) -> Any:
        with self._acquire(request, context) as handle:
            name = request.model_spec.signature_name
            found = await examples.classify(self._data_plane, handle, name, request.input)
            response = wire.ClassificationResponse()
            _fill_classifications(response.result, found)
            _fill_spec(response.model_spec, handle.servable, name or DEFAULT_SIGNATURE)
            return response

    async def regress(self, request: Any, context: Any) -> Any:
        with self._acquire(request, context) as handle:
            name = request.model_spec.signature_name
            found = await examples.regress(self._data_plane, handle, name, request.input)
            response = regression_pb2.RegressionResponse()
            _fill_regressions(response.result, found)
            _fill_spec(response.model_spec, handle.servable, name or DEFAULT_SIGNATURE)
            return response

    async def multi_inference(self, request: Any, context: Any) -> Any:
        first = request.tasks[0] if request.tasks else inference_pb2.InferenceTask()
        with ServableHandle(self._find(_named_spec(first), context)) as handle:
            answers = await examples.multi_inference(self._data_plane, handle, request.tasks, request.input)
            response = wire.MultiInferenceResponse()
            for task, (name, found) in zip(request.tasks, answers, strict=True):
                result = response.results.add()
                _fill_spec(result.model_spec, handle.servable, name)
                if task.method_name == CLASSIFY:
                    _fill_classifications(result.classification_result, found)
                else:
                    _fill_regressions(result.regression_result, found)
            return response

    async def metadata(self, request: Any, context: Any) -> Any:
        _require_spec(request)
        if not request.metadata_field:
            raise InvalidRequest("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise InvalidRequest(f"Metadata field {field} is not supported")
        with self._acquire(request, context) as handle:
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = handle.servable.model
            response.model_spec.version.value = handle.version
            response.metadata["signature_def"].Pack(signature_map(handle))
            return response

    def _acquire(self, request: Any, context: Any) -> ServableHandle:
        return ServableHandle(self._find(_required_spec(request), context))

    def _find(self, spec: ModelSpec, context: Any) -> Servable:
        servable = self._data_plane.models.find(spec)
        if context is not None:
            context.set_trailing_metadata(_trailer(servable.version))
        return servable

    def _predict_signature(self, servable: Servable, name: str) -> Signature:
        signature = choose_signature(servable.signatures, name, _no_signature)
        self._data_plane.check_predict_method(signature)
        return signature


def _no_signature(name: str) -> FailedPrecondition:
    return FailedPrecondition(f'Serving signature key "{name}" not found.')


class _ModelService:
    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane

    async def status(self, request: Any, context: Any) -> Any:
        context.set_trailing_metadata(((SERVER_TRAILER, self._data_plane.id),))
        _require_spec(request)
        return status_response(self._data_plane, _spec(request.model_spec))

    async def reload(self, request: Any, context: Any) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidRequest(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        counted = self._data_plane.metrics.counted
        before = {name: counted(name) for name in request.metric_names}
        await self._data_plane.models.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        for name, count in before.items():
            response.metric.add(name=name, int64_value_increase=counted(name) - count)
        return response


def _add(server: Any, service: str, methods: dict[str, Handler], token: BearerToken | None) -> None:
    if token is not None:
        methods = {name: _guarded(handler, token) for name, handler in methods.items()}
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in methods.items()}
    server.add_registered_method_handlers(service, handlers)


def _guarded(handler: Handler, token: BearerToken) -> Handler:
    async def handle(content: bytes, context: Any) -> Any:
        await admit(token, context)
        return await handler(content, context)

    return handle


def _answered(method: Method, message: Any, api: str = "", metrics: Metrics | None = None) -> Handler:
    """
    A handler that decodes the request itself and turns errors into the status that TensorFlow Serving gives.

    Args:
        api: What the metrics call the method; those without metrics are not counted.
    """

    async def handle(content: bytes, context: Any) -> Any:
        started = time.perf_counter()
        model = ""
        try:
            if len(content) <= MAX_KEPT_BYTES:
                request = message.FromString(content)
            else:
                request = await asyncio.to_thread(message.FromString, content)
            if metrics is not None:
                model = request.model_spec.name
            response = await method(request, context)
        except ServingError as exc:
            code, text = exc.code, exc.message
        except DecodeError:
            return await context.abort(grpc.StatusCode.INTERNAL, "")
        else:
            if metrics is not None:
                metrics.count_answer(model, api, "GRPC", time.perf_counter() - started)
            return response if isinstance(response, bytes) else response.SerializeToString()
        if metrics is not None:
            metrics.count_failure(model, code.name)
        return await context.abort(code, _cut(text))

    return handle


def _cut(text: str) -> str:
    content = text.encode("utf-8", "surrogateescape")
    if len(content) <= MAX_MESSAGE_BYTES:
        return text
    return content[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"


def _trailer(version: int) -> tuple[tuple[str, str], ...]:
    return (("model-version", str(version)),)


@lru_cache(1024)
def _frame(
    model: str,
    version: int,
    signature_name: str,
    alias: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    as_content: bool,
) -> tuple[bytes, bytes]:
    """What stands before and after the values of the only output; the same for all answers of one shape."""
    tensor: Any = wire.TensorProto()
    tensor.dtype = data_type_of(dtype)
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    field = "tensor_content" if as_content else "float_val" if dtype.char == "f" else "double_val"
    value_bytes = math.prod(shape) * dtype.itemsize
    head = tensor.SerializeToString() + _length_prefix(tensor.DESCRIPTOR.fields_by_name[field].number, value_bytes)
    head = _length_prefix(2, len(head) + value_bytes) + head
    head = _length_prefix(1, len(alias.encode())) + alias.encode() + head
    response = wire.PredictResponse()
    spec = response.model_spec
    spec.name, spec.version.value, spec.signature_name = model, version, signature_name
    return _length_prefix(1, len(head) + value_bytes) + head, response.SerializeToString()


def _length_prefix(number: int, size: int) -> bytes:
    """What stands before the bytes of a field."""
    return varint(number << 3 | 2) + varint(size)


def _require_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise InvalidRequest("Missing ModelSpec")


def _required_spec(request: Any) -> ModelSpec:
    _require_spec(request)
    return _named_spec(request)


def _named_spec(request: Any) -> ModelSpec:
    if not request.model_spec.name:
        raise InvalidRequest("ModelSpec has no name specified.")
    return _spec(request.model_spec)


def _spec(proto: Any) -> ModelSpec:
    choice = proto.WhichOneof("version_choice")
    if choice == "version":
        return ModelSpec(proto.name, proto.version.value)
    if choice == "version_label":
        return ModelSpec(proto.name, None, proto.version_label)
    return ModelSpec(proto.name)


def _fill_spec(spec: Any, servable: Servable, signature_name: str) -> None:
    spec.name = servable.model
    spec.version.value = servable.version
    spec.signature_name = signature_name


def _fill_classifications(result: wire.ClassificationResult, found: Any) -> None:
    for row in found:
        classes = result.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)


def _fill_regressions(result: Any, found: Any) -> None:
    for value in found:
        result.regressions.add(value=value)
