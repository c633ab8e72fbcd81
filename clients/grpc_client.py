"""
Asks a model server over gRPC.

``python -m clients.grpc_client --host 127.0.0.1 --port 8500`` asks a server for iris and prints what it says.

Source: tensorflow_serving/apis/prediction_service.proto, model_service.proto
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike, NDArray

from clients.client import (
    NO_CREDENTIALS,
    Credentials,
    Inputs,
    ModelMetadata,
    PredictClient,
    Prediction,
    error_of,
    model_spec,
    too_late,
    unreachable,
)
from clients.proxies import is_local_target
from clients.retries import call_with_retries
from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import FailedPrecondition, InvalidRequest, ServingError, Unsupported
from serving.protocol.model_spec import ModelSpec
from serving.protocol.signature import TensorInfo
from serving.protocol.tensors import decode, encode
from serving.protocol.version_status import State, VersionStatus
from serving.repository.model_config import ModelEntry, to_message

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_NO_MODEL = "no_such_model"
_SERVER_TRAILER = "hotswap-server"
_RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a new client tries at once, whatever an earlier one met
    ("grpc.initial_reconnect_backoff_ms", 100),  # shorter than the pause before a call is made again
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# The kinds of NumPy type that a list may have where the signature asks for the kind on the left.
_ACCEPTED_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "V": "iuf", "c": "iufc"}

Answer = TypeVar("Answer", bound=Message)


class GrpcClient(PredictClient):
    """Asks the server at a target such as ``127.0.0.1:8500`` or ``unix:/run/hotswap.sock``."""

    def __init__(self, target: str, timeout_seconds: float = 10.0, credentials: Credentials = NO_CREDENTIALS) -> None:
        self._target = target
        self._timeout_seconds = timeout_seconds
        self._channel = _channel(target, credentials)
        self._call_metadata = (("authorization", f"Bearer {credentials.token}"),) if credentials.token else ()
        self._metadata: dict[ModelSpec, ModelMetadata] = {}

    def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        label: str | None = None,
        signature_name: str = "",
    ) -> Prediction:
        spec = model_spec(model, version, label)
        request = wire.PredictRequest(model_spec=_spec_message(spec, signature_name))
        for name, array in self._arrays(spec, signature_name, inputs).items():
            _encode(name, array, request)
        try:
            response = self._call(_PREDICT, request, wire.PredictResponse)
        except FailedPrecondition:
            self._known_metadata(spec).signature(signature_name)  # over REST an unknown signature is an invalid request
            raise
        outputs = {name: _decoded(name, tensor) for name, tensor in response.outputs.items()}
        answered = response.model_spec.version.value if response.model_spec.HasField("version") else version
        return Prediction(outputs, answered)

    def status(self, model: str, version: int | None = None) -> list[VersionStatus]:
        request = wire.GetModelStatusRequest(model_spec=_spec_message(model_spec(model, version)))
        response = self._call(_STATUS, request, wire.GetModelStatusResponse)
        return [
            VersionStatus(
                each.version,
                State(each.state),
                _CODES.get(each.status.error_code, grpc.StatusCode.UNKNOWN),
                each.status.error_message,
            )
            for each in response.model_version_status
        ]

    def metadata(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelMetadata:
        spec = model_spec(model, version, label)
        request = wire.GetModelMetadataRequest(model_spec=_spec_message(spec), metadata_field=["signature_def"])
        response = self._call(_METADATA, request, wire.GetModelMetadataResponse)
        signatures = wire.SignatureDefMap.FromString(response.metadata["signature_def"].value).signature_def
        found = ModelMetadata.of(response.model_spec.name, response.model_spec.version.value, signatures)
        self._metadata[spec] = found
        return found

    def reload(self, entries: Sequence[ModelEntry]) -> None:
        """
        Make the server serve these models and labels, and no others.

        Raises:
            ServingError: The server refused the configuration and keeps the one it has.
        """
        request = wire.ReloadConfigRequest(config=to_message(entries))
        self._call_once(_RELOAD, request, wire.ReloadConfigResponse, self._timeout_seconds)

    def server(self) -> str | None:
        """
        The id of this server, as `Served.server`; None from TensorFlow Serving itself, which has none.

        Raises:
            ServingError: Nothing answers, or a server without ``ModelService``.
        """
        return call_with_retries(self._server_once, self._timeout_seconds)

    def close(self) -> None:
        self._channel.close()

    def _server_once(self, timeout_seconds: float) -> str | None:
        status: Any = self._channel.unary_unary(_STATUS, _serialize, wire.GetModelStatusResponse.FromString)
        request = wire.GetModelStatusRequest(model_spec=_spec_message(model_spec(_NO_MODEL)))
        answer: Any
        try:
            _, answer = status.with_call(request, timeout=timeout_seconds, metadata=self._call_metadata)
        except grpc.RpcError as exc:
            answer = exc
            if answer.code() is not grpc.StatusCode.NOT_FOUND:
                raise self._error(answer.code(), answer.details() or "") from exc
        found = dict(answer.trailing_metadata() or ()).get(_SERVER_TRAILER)
        return found.decode() if isinstance(found, bytes) else found

    def _arrays(self, spec: ModelSpec, signature_name: str, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """The inputs by name; the server is asked for names and types only where they are not known."""
        if isinstance(inputs, Mapping):
            arrays = {name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}
            if len(arrays) == len(inputs):
                return arrays
        infos = self._known_metadata(spec).signature(signature_name).inputs
        if not isinstance(inputs, Mapping):
            if len(infos) != 1:
                raise InvalidRequest(f"The signature has {len(infos)} inputs, give them by name: {', '.join(infos)}")
            inputs = dict.fromkeys(infos, inputs)
        return {name: _as_array(name, value, infos.get(name)) for name, value in inputs.items()}

    def _known_metadata(self, spec: ModelSpec) -> ModelMetadata:
        """The metadata of a servable, asked for once."""
        return self._metadata.get(spec) or self.metadata(spec.name, version=spec.version, label=spec.label)

    def _call(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        return call_with_retries(
            lambda seconds: self._call_once(method, request, answer, seconds), self._timeout_seconds
        )

    def _call_once(self, method: str, request: Message, answer: type[Answer], timeout_seconds: float) -> Answer:
        call: Callable[..., Answer] = self._channel.unary_unary(method, _serialize, answer.FromString)
        try:
            return call(request, timeout=timeout_seconds, metadata=self._call_metadata)
        except grpc.RpcError as exc:
            raise self._error(exc.code(), exc.details() or "") from exc

    def _error(self, code: grpc.StatusCode, details: str) -> ServingError:
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return too_late(self._target, self._timeout_seconds)
        if code is grpc.StatusCode.UNAVAILABLE and details.startswith("failed to connect"):
            return unreachable(self._target)
        return error_of(code, details)


def _channel(target: str, credentials: Credentials) -> grpc.Channel:
    options = [*_OPTIONS, ("grpc.enable_http_proxy", int(not is_local_target(target)))]
    if not credentials.ca_file:
        return grpc.insecure_channel(target, options=options)
    files = (credentials.ca_file, credentials.key_file, credentials.certificate_file)
    try:
        channel_credentials = grpc.ssl_channel_credentials(
            *(Path(file).read_bytes() if file else None for file in files)
        )
    except OSError as exc:
        raise InvalidRequest(f"{exc.filename} cannot be read: {exc.strerror}") from exc
    return grpc.secure_channel(target, channel_credentials, options=options)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _spec_message(spec: ModelSpec, signature_name: str = "") -> wire.ModelSpec:
    message = wire.ModelSpec(name=spec.name, signature_name=signature_name)
    if spec.version is not None:
        message.version.value = spec.version
    if spec.label is not None:
        message.version_label = spec.label
    return message


def _encode(name: str, array: NDArray[Any], request: wire.PredictRequest) -> None:
    try:
        encode(array, request.inputs[name], as_content=True)
    except ValueError as exc:
        raise InvalidRequest(f"Input {name!r}: {exc}") from exc


def _decoded(name: str, tensor: wire.TensorProto) -> NDArray[Any]:
    try:
        return decode(tensor)
    except ValueError as exc:
        raise Unsupported(f"Output {name!r} cannot be read: {exc}") from exc


def _as_array(name: str, value: ArrayLike, info: TensorInfo | None) -> NDArray[Any]:
    """
    An input as an array; what is no array yet becomes one of the signature's type.

    Raises:
        InvalidRequest: Its values are not of that kind, as REST would say too.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        if info is None or info.dtype is None:
            return np.asarray(value)
        if info.dtype == object:
            return _as_strings(value)
        given = np.asarray(value)
        if given.size and given.dtype.kind not in _ACCEPTED_KINDS[info.dtype.kind]:
            raise ValueError(f"expected {info.dtype}, found {given.dtype}")
        with np.errstate(over="ignore"):  # beyond the largest float is infinity, as over REST
            return np.asarray(value, info.dtype)
    except (ValueError, OverflowError, TypeError) as exc:
        raise InvalidRequest(f"Input {name!r}: {exc}") from exc


def _as_strings(value: ArrayLike) -> NDArray[Any]:
    strings = np.asarray(value, object)
    if not all(isinstance(each, (str, bytes)) for each in strings.flat):
        raise ValueError("expected strings")
    return strings


if __name__ == "__main__":
    from clients.cli import main

    main(lambda host, port, credentials: GrpcClient(f"{host}:{port}", credentials=credentials), default_port=8500)
