"""
Protects the server: bearer tokens for clients, TLS for both protocols.

Source: tensorflow_serving/config/ssl_config.proto; RFC 6750 for the bearer token
"""

from __future__ import annotations

import hmac
import ssl
from pathlib import Path
from typing import Any

import grpc

from serving.protocol import wire_pb2 as wire
from serving.protocol.errors import InvalidRequest, Unauthenticated
from serving.protocol.text_protos import read_text_proto

_SCHEME = b"bearer "


class BearerToken:
    """A secret that every request must carry, as ``Authorization: Bearer SECRET``."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def check(self, authorization: bytes | None) -> None:
        """
        Check the ``authorization`` of a request.

        Raises:
            Unauthenticated: It is missing, or carries another token.
        """
        if authorization is None or not authorization.lower().startswith(_SCHEME):
            raise Unauthenticated("This server requires a bearer token: send the header 'Authorization: Bearer TOKEN'")
        if not hmac.compare_digest(authorization[len(_SCHEME) :].strip(), self._secret):
            raise Unauthenticated("Invalid bearer token")


async def require_token(token: BearerToken, context: Any) -> None:
    """Abort a gRPC call that does not carry the token."""
    authorization = dict(context.invocation_metadata()).get("authorization")
    try:
        token.check(None if authorization is None else authorization.encode())
    except Unauthenticated as exc:
        await context.abort(exc.code, exc.message)


def read_token(path: Path) -> BearerToken:
    """
    The token in a file, without the white space around it.

    Raises:
        InvalidRequest: There is none.
    """
    secret = path.read_bytes().strip()
    if not secret or not secret.isascii() or b"\n" in secret:
        raise InvalidRequest(f"{path} must hold one line of ASCII: the token")
    return BearerToken(secret)


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
