"""Connects to the model server: one client a protocol, with the credentials of the settings."""

from __future__ import annotations

from clients.client import Credentials, PredictClient
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.settings import InvalidSettings, Settings
from serving.protocol.errors import InvalidRequest, ServableNotFound


def rest_client(settings: Settings, timeout_seconds: float = 10.0) -> RestClient:
    """
    A client for REST, of the first endpoint.

    Raises:
        InvalidSettings: The token cannot be read.
    """
    return RestClient(settings.endpoints[0].rest_url, timeout_seconds, credentials(settings))


def grpc_client(settings: Settings, timeout_seconds: float = 10.0) -> GrpcClient:
    """
    A client for gRPC, of the first endpoint.

    Raises:
        InvalidSettings: The token cannot be read.
    """
    return GrpcClient(settings.endpoints[0].grpc_target, timeout_seconds, credentials(settings))


def assigned_label(client: PredictClient, model: str, label: str) -> str | None:
    """
    `label` where the server has an available version with it, else None.

    TensorFlow Serving gives requests that name nothing the highest version, whatever is labelled.

    Raises:
        ServingError: The server does not answer.
    """
    try:
        client.metadata(model, label=label)
    except (InvalidRequest, ServableNotFound):
        return None
    return label


def credentials(settings: Settings) -> Credentials:
    """
    The token that the model server requires, where one is set: that of an administrator, else that for predictions.

    Raises:
        InvalidSettings: The token cannot be read.
    """
    for name in ("admin_token_file", "token_file"):
        path = getattr(settings, name)
        if path is None:
            continue
        try:
            return Credentials(token=next(filter(None, map(str.strip, path.read_text("utf-8").splitlines())), ""))
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidSettings(f"HOTSWAP_{name.upper()}={path} cannot be read: {exc}") from exc
    return Credentials()
