"""What a client asks of a model server and gets from it, over either protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import grpc
from numpy.typing import ArrayLike, NDArray

from serving.protocol import errors
from serving.protocol.errors import DeadlineExceeded, InvalidRequest, ServerUnavailable, ServingError
from serving.protocol.model_spec import ModelSpec
from serving.protocol.signature import INIT_SIGNATURE, Signature, choose_signature, read_signature
from serving.protocol.unknown_operations import explained
from serving.protocol.version_status import VersionStatus
from serving.repository.version_policy import INT64_MAX

_NOT_ONE_TENSOR = "Tensor :0, specified in either feed_devices or fetch_devices was not found in the Graph"

Inputs = Mapping[str, ArrayLike] | ArrayLike

_FAMILY: dict[grpc.StatusCode, type[ServingError]] = {
    each.code: each
    for each in (
        errors.InvalidRequest,
        errors.ServableNotFound,
        errors.FailedPrecondition,
        errors.Unsupported,
        errors.Unauthenticated,
        errors.Forbidden,
        errors.Exhausted,
        errors.DeadlineExceeded,
        errors.ServerUnavailable,
    )
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a client proves who it is, and recognizes the right server."""

    token: str = ""
    """the bearer token that the server requires"""
    ca_file: str | None = None
    """the certificate, as PEM, of the authority that signed the server's; with it gRPC uses TLS"""
    certificate_file: str | None = None
    """the client's own certificate as PEM, where the server requires one"""
    key_file: str | None = None
    """its key as PEM"""


NO_CREDENTIALS = Credentials()


@dataclass(frozen=True, slots=True)
class Prediction:
    """One array per signature output, and the version that answered where the server names it."""

    outputs: dict[str, NDArray[Any]]
    version: int | None


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The signatures of one version of a model that clients can ask for."""

    model: str
    version: int
    signatures: Mapping[str, Signature]

    @classmethod
    def of(cls, model: str, version: int, definitions: Mapping[str, Any]) -> Self:
        """From the ``SignatureDef`` messages that a server gives."""
        signatures = {name: read_signature(name, each) for name, each in definitions.items() if name != INIT_SIGNATURE}
        return cls(model, version, signatures)

    def signature(self, name: str) -> Signature:
        """
        The signature of this name; the default one for an empty name.

        Raises:
            InvalidRequest: There is none.
        """
        return choose_signature(self.signatures, name, self._no_signature)

    def _no_signature(self, name: str) -> InvalidRequest:
        return InvalidRequest(
            f"Version {self.version} of {self.model!r} has no signature {name!r}; "
            f"it has {', '.join(sorted(self.signatures))}"
        )


@dataclass(frozen=True, slots=True)
class Served:
    """What the embedded server reports about itself."""

    server: str | None
    """the id of this server while it runs; None from a server without one"""
    repository: str | None
    """the directory with the models, as the server sees it"""
    repository_id: str | None
    rows: list[dict[str, Any]]
    """every version it knows, with state, labels, digest, run and number of requests"""
    default_version_label: str | None = None
    """where requests with neither version nor label go; None for the highest version"""
    is_replica: bool = False
    """whether a publish agent keeps that directory equal to what the registry says"""
    not_fetched: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """by model and version, why the agent cannot get it"""


class PredictClient(Protocol):
    """
    Asks one model server.

    Every method raises an error of `serving.protocol.errors`: `ServerUnavailable` where nothing answers,
    `DeadlineExceeded` where the answer takes too long, otherwise the error that the server reports. A call is retried
    only while the server is unavailable.
    """

    def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        label: str | None = None,
        signature_name: str = "",
    ) -> Prediction:
        """
        Run a signature once.

        Args:
            inputs: One array per signature input, or a bare array for the only input. NumPy arrays are sent as they
                are, lists as the type that the signature asks for.
            version: With neither `version` nor `label` the server chooses: its default label, or the highest.
            signature_name: Empty for ``serving_default``.

        Returns:
            Arrays of the signature's types; strings are object arrays of bytes.
        """
        ...

    def status(self, model: str, version: int | None = None) -> list[VersionStatus]:
        """All versions that the server knows, or the one asked for, highest first."""
        ...

    def metadata(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """The signatures of the version that `predict` would ask."""
        ...

    def close(self) -> None:
        """Free the connection."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def model_spec(model: str, version: int | None = None, label: str | None = None) -> ModelSpec:
    """
    The servable to ask for.

    Raises:
        InvalidRequest: No servable can have this address.
    """
    if not model:
        raise InvalidRequest("The name of a model is needed")
    if version is not None and label is not None:
        raise InvalidRequest(f"Ask for version {version} or for label {label!r}, not for both")
    if version is not None and not 0 <= version <= INT64_MAX:
        raise InvalidRequest(f"A version is a number from 0 to {INT64_MAX}, not {version}")
    return ModelSpec(model, version, label)


def error_of(code: grpc.StatusCode, message: str) -> ServingError:
    """The error of our own family for a status from a server."""
    if message == _NOT_ONE_TENSOR:
        message += (
            ": an input or output of this signature is sparse or ragged, and only dense tensors can be sent and "
            "received; ask another signature."
        )
    message = explained(message)
    if code in _FAMILY:
        return _FAMILY[code](message)
    error = ServingError(message)
    error.code = code
    return error


def unreachable(server: str) -> ServerUnavailable:
    """Nothing listens at the address `server`."""
    return ServerUnavailable(
        f"The model server at {server} cannot be reached; start it with `hotswap serve` or `hotswap up`."
    )


def too_late(server: str, timeout_seconds: float) -> DeadlineExceeded:
    """The server at the address `server` did not answer in time."""
    return DeadlineExceeded(f"The model server at {server} did not answer within {timeout_seconds:g} s.")
