"""
Protects the server: bearer tokens for clients by role, TLS for both protocols.

Who has the role ADMIN may change what is served and see where its files are: ``HandleReloadConfigRequest`` and
``/hotswap/models``. PREDICT is everything else: inference, states, signatures, metrics, reflection. A token of ADMIN is
one of PREDICT too. Health checks need none.

Source: tensorflow_serving/config/ssl_config.proto; RFC 6750 for the bearer token
"""

from __future__ import annotations

import enum
import hmac
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import Forbidden, InvalidRequest, Unauthenticated
from serving.protocol.text_protos import read_text_proto

log = logging.getLogger(__name__)

_SCHEME = b"bearer "


class Role(enum.Enum):
    """What a token is for."""

    PREDICT = "predict"
    ADMIN = "admin"


class TokenFile:
    """
    The tokens in a file, one a line; a file that has changed counts from the next request on.

    So a token is replaced without a restart: append the new one, give it to the clients, take the old one out.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: It cannot be read.
            InvalidRequest: There is no token in it.
        """
        self._path = path
        self._seen = self._identity()
        self._tokens = read_tokens(path)

    def has(self, secret: bytes) -> bool:
        """Whether it is one of them."""
        self._read_again()
        return any(hmac.compare_digest(secret, token) for token in self._tokens)

    def _read_again(self) -> None:
        """A file that cannot be used, as while somebody writes it, leaves the tokens as they are."""
        try:
            if (found := self._identity()) == self._seen:
                return
            self._seen = found
            self._tokens = read_tokens(self._path)
            log.info("tokens read again path=%s", self._path)
        except (OSError, InvalidRequest) as exc:
            log.warning("tokens stay as they were path=%s: %s", self._path, exc)

    def _identity(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size


class Access:
    """Who may do what, by the bearer token that comes as ``Authorization: Bearer SECRET``."""

    def __init__(self, tokens: TokenFile | None = None, admin_tokens: TokenFile | None = None) -> None:
        """
        Args:
            tokens: For all roles, or without ADMIN where that has its own; None lets everybody predict.
            admin_tokens: Those of ADMIN; None where it has none of its own.
        """
        self._accepted = {
            Role.PREDICT: [each for each in (tokens, admin_tokens) if each] if tokens else [],
            Role.ADMIN: [each for each in (admin_tokens or tokens,) if each],
        }

    def is_open(self, role: Role) -> bool:
        """Whether everybody has this role."""
        return not self._accepted[role]

    def check(self, authorization: bytes | None, role: Role) -> None:
        """
        Check the ``authorization`` of a request.

        Raises:
            Unauthenticated: It is missing, or carries a token that is none.
            Forbidden: It carries one of another role.
        """
        if self.is_open(role):
            return
        if authorization is None or not authorization.lower().startswith(_SCHEME):
            raise Unauthenticated("This server requires a bearer token: send the header 'Authorization: Bearer TOKEN'")
        secret = authorization[len(_SCHEME) :].strip()
        if _any_has(self._accepted[role], secret):
            return
        if _any_has(self._accepted[Role.PREDICT], secret):
            raise Forbidden("This needs the token of an administrator, and this one is for predictions alone")
        raise Unauthenticated("Invalid bearer token")


def _any_has(files: Sequence[TokenFile], secret: bytes) -> bool:
    return any(each.has(secret) for each in files)


async def require(access: Access, context: Any, role: Role) -> None:
    """Abort a gRPC call whose token does not have the role."""
    authorization = dict(context.invocation_metadata()).get("authorization")
    try:
        access.check(None if authorization is None else authorization.encode(), role)
    except Unauthenticated as exc:
        await context.abort(exc.code, exc.message)


def read_access(token_file: Path | None, admin_token_file: Path | None) -> Access:
    """
    Who may do what, by the files of the settings of the same names.

    Raises:
        OSError: One cannot be read.
        InvalidRequest: One has no token in it.
    """
    tokens, admin_tokens = (None if path is None else TokenFile(path) for path in (token_file, admin_token_file))
    return Access(tokens, admin_tokens)


def read_tokens(path: Path) -> list[bytes]:
    """
    The tokens in a file, one a line, without the white space around each.

    Raises:
        InvalidRequest: There is none, or one is not of ASCII.
    """
    tokens = [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
    if not tokens or not all(token.isascii() for token in tokens):
        raise InvalidRequest(f"{path} must hold one token a line, of ASCII")
    return tokens


def read_grpc_credentials(path: Path) -> grpc.ServerCredentials:
    """
    TLS for gRPC, from an ``SSLConfig`` in text format, which holds keys and certificates as PEM.

    Raises:
        InvalidRequest: It is not one, or asks for client certificates without the authority that signs them.
    """
    config = read_text_proto(path, wire.SSLConfig())
    if not config.server_key or not config.server_cert:
        raise InvalidRequest(f"{path} must have a server_key and a server_cert, both as PEM")
    if config.client_verify and not config.custom_ca:
        raise InvalidRequest(f"{path} has client_verify but no custom_ca to verify with")
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        config.custom_ca.encode() or None,
        config.client_verify,
    )


def read_tls_context(certificate_file: Path, key_file: Path | None) -> ssl.SSLContext:
    """
    TLS 1.2 or later for REST, with this certificate.

    Raises:
        InvalidRequest: It does not match the key, or is not a certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate_file, key_file)
    except ssl.SSLError as exc:
        raise InvalidRequest(f"{certificate_file} and its key cannot be used for TLS: {exc.reason or exc}") from exc
    return context
