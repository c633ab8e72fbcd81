"""
Who may ask the server, and how does a client know that it speaks with it?

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
        Look at a request's ``authorization``.

        Raises:
            Unauthenticated: It is missing, or carries something else.
        """
        if authorization is None or not authorization.lower().startswith(_SCHEME):
            raise Unauthenticated("This server wants a token: send 'Authorization: Bearer TOKEN'")
        if not hmac.compare_digest(authorization[len(_SCHEME) :].strip(), self._secret):
            raise Unauthenticated("The token is not the one that this server wants")


async def admit(token: BearerToken, context: Any) -> None:
    """End a gRPC call that does not carry the token."""
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
    What an ``SSLConfig`` in text format asks for; keys and certificates stand in it as PEM.

    Raises:
        InvalidRequest: It is none, or asks for client certificates without naming who signs them.
    """
    config = read_text_proto(path, wire.SSLConfig())
    if not config.server_key or not config.server_cert:
        raise InvalidRequest(f"{path} must have a server_key and a server_cert, both as PEM")
    if config.client_verify and not config.custom_ca:
        raise InvalidRequest(f"{path} has client_verify, and no custom_ca to verify with")
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        config.custom_ca.encode() or None,
        config.client_verify,
    )


def read_rest_context(certificate_file: Path, key_file: Path | None) -> ssl.SSLContext:
    """
    TLS 1.2 or later with this certificate.

    Raises:
        InvalidRequest: It does not fit the key, or is none.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate_file, key_file)
    except ssl.SSLError as exc:
        raise InvalidRequest(f"{certificate_file} and its key cannot be used for TLS: {exc.reason or exc}") from exc
    return context
