"""
Asks a model server over REST.

``python -m clients.rest_client --host 127.0.0.1 --port 8501`` asks a server for iris and prints what it says.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import numpy as np
import requests
from google.protobuf import json_format
from numpy.typing import NDArray

from clients.client import (
    NO_CREDENTIALS,
    Credentials,
    Inputs,
    ModelMetadata,
    PredictClient,
    Prediction,
    Served,
    error_of,
    model_spec,
    too_late,
    unreachable,
)
from clients.proxies import is_loopback
from clients.retries import call_with_retries
from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ServableNotFound,
    ServerUnavailable,
    ServingError,
    Unauthenticated,
)
from serving.protocol.model_spec import ModelSpec
from serving.protocol.redaction import redacted
from serving.protocol.signature import Signature, TensorInfo
from serving.protocol.version_status import State, VersionStatus

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

_ROW_KEYS = {"model", "version", "state", "labels", "digest"}


class RestClient(PredictClient):
    """Asks the server at a URL such as ``http://127.0.0.1:8501``; with ``https`` over TLS."""

    def __init__(self, base_url: str, timeout_seconds: float = 10.0, credentials: Credentials = NO_CREDENTIALS) -> None:
        self._base_url = base_url.rstrip("/")
        self._shown = redacted(self._base_url)
        self._timeout_seconds = timeout_seconds
        self._session = requests.Session()
        # Of the environment the proxies count, and no password that a .netrc has for the host.
        self._session.trust_env = False
        if not is_loopback(urlsplit(self._base_url).hostname or ""):
            self._session.proxies = requests.utils.get_environ_proxies(self._base_url)
        self._session.verify = credentials.ca_file or True
        if credentials.certificate_file and credentials.key_file:
            self._session.cert = (credentials.certificate_file, credentials.key_file)
        if credentials.token:
            self._session.headers["Authorization"] = f"Bearer {credentials.token}"
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
        body: dict[str, Any] = {"inputs": dict(inputs) if isinstance(inputs, Mapping) else inputs}
        if signature_name:
            body["signature_name"] = signature_name
        content = json.dumps(body, default=_as_json)
        response, answered = self._answered(spec, content)
        try:
            metadata = self._known_metadata(answered)
        except ServableNotFound:
            if version is not None:
                raise
            # The version that answered has been removed since: once more, to whichever answers now.
            response, answered = self._answered(spec, content)
            metadata = self._known_metadata(answered)
        outputs = _named_arrays(_json(response)["outputs"], metadata.signature(signature_name))
        return Prediction(outputs, answered.version)

    def status(self, model: str, version: int | None = None) -> list[VersionStatus]:
        answer = _json(self._call("GET", _path(model_spec(model, version))))
        return [
            VersionStatus(
                int(each["version"]),
                State[each["state"]],
                grpc.StatusCode[each["status"]["error_code"]],
                each["status"]["error_message"],
            )
            for each in answer["model_version_status"]
        ]

    def metadata(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelMetadata:
        spec = model_spec(model, version, label)
        answer = _json(self._call("GET", f"{_path(spec)}/metadata"))
        signatures = wire.SignatureDefMap()
        json_format.ParseDict(answer["metadata"]["signature_def"], signatures, ignore_unknown_fields=True)
        model, version = answer["model_spec"]["name"], int(answer["model_spec"]["version"])
        found = ModelMetadata.of(model, version, signatures.signature_def)
        self._metadata[spec] = self._metadata[ModelSpec(model, found.version)] = found
        return found

    def served(self) -> Served | None:
        """
        What the server reports about itself: its repository, and every version it knows.

        None from TensorFlow Serving itself, which has no such page.
        """
        try:
            page = self._call("GET", "/hotswap/models").json()
        except (ServerUnavailable, DeadlineExceeded, Unauthenticated):
            raise
        except (ServingError, ValueError):
            return None
        return _served(page)

    def close(self) -> None:
        self._session.close()

    def _answered(self, spec: ModelSpec, content: str) -> tuple[requests.Response, ModelSpec]:
        """The answer to a predict, and the version that gave it, as far as the answer names it."""
        response = self._call("POST", f"{_path(spec)}:predict", content)
        version = response.headers.get("model-version")
        return response, spec if version is None else ModelSpec(spec.name, int(version))

    def _known_metadata(self, spec: ModelSpec) -> ModelMetadata:
        """The metadata of a servable, asked for once: an answer with one output does not name it, nor any type."""
        return self._metadata.get(spec) or self.metadata(spec.name, version=spec.version, label=spec.label)

    def _call(self, method: str, path: str, body: str | None = None) -> requests.Response:
        return call_with_retries(lambda seconds: self._call_once(method, path, body, seconds), self._timeout_seconds)

    def _call_once(self, method: str, path: str, body: str | None, timeout_seconds: float) -> requests.Response:
        try:
            response = self._session.request(method, self._base_url + path, data=body, timeout=timeout_seconds)
        except requests.exceptions.SSLError as exc:
            raise InvalidRequest(f"TLS with {self._shown} failed: {redacted(str(exc))}") from exc
        except requests.Timeout as exc:
            raise too_late(self._shown, self._timeout_seconds) from exc
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as exc:
            raise unreachable(self._shown) from exc
        except requests.RequestException as exc:
            raise InvalidRequest(f"{self._shown} cannot be asked: {redacted(str(exc))}") from exc
        if not response.ok:
            raise self._error(response)
        return response

    def _error(self, response: requests.Response) -> ServingError:
        try:
            message = _json(response)["error"]
        except (ServingError, KeyError):
            return ServingError(f"{redacted(response.url)} answered {response.status_code} {response.reason}")
        return error_of(_CODES.get(response.status_code, grpc.StatusCode.INTERNAL), message)


def _served(page: Any) -> Served | None:
    """The page of a server, also of one so old that its page is a list; None for anything else."""
    page = {"models": page} if isinstance(page, list) else page
    rows = page.get("models") if isinstance(page, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= _ROW_KEYS for row in rows):
        return None
    repository = page.get("repository")
    repository = repository if isinstance(repository, dict) else {}
    return Served(
        page.get("server"),
        repository.get("path"),
        repository.get("id"),
        rows,
        page.get("default_version_label"),
        is_replica=repository.get("is_replica") is True,
        not_fetched=page.get("not_fetched") or {},
    )


def _path(spec: ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.version is not None:
        return f"{path}/versions/{spec.version}"
    return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"


def _as_json(value: Any) -> Any:
    """What ``json`` itself cannot write."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    raise InvalidRequest(f"A value of type {type(value).__name__} cannot be sent over REST")


def _json(response: requests.Response) -> dict[str, Any]:
    """The object in an answer; bytes that are not UTF-8 survive in its strings."""
    try:
        answer = json.loads(response.content.decode("utf-8", "surrogateescape"))
    except ValueError as exc:
        raise ServingError(f"{redacted(response.url)} did not answer in JSON") from exc
    if not isinstance(answer, dict):
        raise ServingError(f"{redacted(response.url)} did not answer with a JSON object")
    return answer


def _named_arrays(outputs: Any, signature: Signature) -> dict[str, NDArray[Any]]:
    if len(signature.outputs) == 1:
        (name,) = signature.outputs
        outputs = {name: outputs}
    return {name: _array(outputs[name], info) for name, info in signature.outputs.items()}


def _array(value: Any, info: TensorInfo) -> NDArray[Any]:
    if info.dtype == object:
        return np.array(_as_bytes(value), object)
    return np.array(value, info.dtype)


def _as_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_bytes(each) for each in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    from clients.cli import main

    def connect(host: str, port: int, credentials: Credentials) -> RestClient:
        return RestClient(f"{'https' if credentials.ca_file else 'http'}://{host}:{port}", credentials=credentials)

    main(connect, default_port=8501)
