"""
What can go wrong, under one name at both ends of the wire.

::

    HotswapError
    ├── ServingError            INTERNAL
    │   ├── InvalidRequest      INVALID_ARGUMENT
    │   ├── ServableNotFound    NOT_FOUND
    │   ├── FailedPrecondition  FAILED_PRECONDITION
    │   │   └── LabelNotAssignable
    │   ├── Unsupported         UNIMPLEMENTED
    │   ├── Unauthenticated     UNAUTHENTICATED
    │   │   └── Forbidden       PERMISSION_DENIED
    │   ├── Exhausted           RESOURCE_EXHAUSTED
    │   ├── DeadlineExceeded    DEADLINE_EXCEEDED
    │   ├── ServerUnavailable   UNAVAILABLE
    │   └── GraphError          the code that TensorFlow gave
    └── RepositoryError
        ├── VersionExists
        ├── VersionNotFound
        ├── IncompleteSavedModel
        └── UntrustedVersion
"""

from __future__ import annotations

import grpc

from serving.protocol.redaction import redacted


class HotswapError(Exception):
    """Something a user can act on."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(type(self).__doc__ if message is None else message)

    def __str__(self) -> str:
        """The message without the secrets that an address in it carries, as it goes to logs, journals and pages."""
        return redacted(super().__str__())

    @property
    def message(self) -> str:
        return str(self)


class ServingError(HotswapError):
    """The model server failed."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL

    # It is sent to the client and may quote all of a large request, so it is not redacted.
    __str__ = Exception.__str__


class InvalidRequest(ServingError):
    """The request cannot be understood."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class ServableNotFound(ServingError):
    """No such model or version is being served."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(ServingError):
    """The server is not in a state that allows this."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class LabelNotAssignable(FailedPrecondition):
    """A label can only point at an available version."""


class Unsupported(ServingError):
    """The server does not do this."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Unauthenticated(ServingError):
    """The server does not know the client."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Forbidden(Unauthenticated):
    """The server knows the client, who may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Exhausted(ServingError):
    """A limit of the server is reached."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(ServingError):
    """No answer came in time."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class ServerUnavailable(ServingError):
    """The model server cannot be reached."""

    code = grpc.StatusCode.UNAVAILABLE


class GraphError(ServingError):
    """TensorFlow refused to load or run a graph."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class RepositoryError(HotswapError):
    """The models repository cannot do this."""


class VersionExists(RepositoryError):
    """This version number is taken."""


class VersionNotFound(RepositoryError):
    """This version is not in the repository."""


class IncompleteSavedModel(RepositoryError):
    """The directory is not a complete SavedModel."""


class UntrustedVersion(RepositoryError):
    """The version is not signed by a trusted key."""
