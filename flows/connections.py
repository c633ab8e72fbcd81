"""How does this process ask the model server?"""

from __future__ import annotations

from clients.client import Access
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.settings import InvalidSettings, Settings


def rest_client(settings: Settings, timeout_seconds: float = 10.0) -> RestClient:
    """
    A client for REST, of the first endpoint.

    Raises:
        InvalidSettings: The token cannot be read.
    """
    return RestClient(settings.endpoints[0].rest_url, timeout_seconds, access(settings))


def grpc_client(settings: Settings, timeout_seconds: float = 10.0) -> GrpcClient:
    """
    A client for gRPC, of the first endpoint.

    Raises:
        InvalidSettings: The token cannot be read.
    """
    return GrpcClient(settings.endpoints[0].grpc_target, timeout_seconds, access(settings))


def access(settings: Settings) -> Access:
    """
    What the model server wants to see.

    Raises:
        InvalidSettings: The token cannot be read.
    """
    if settings.token_file is None:
        return Access()
    try:
        return Access(token=settings.token_file.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidSettings(f"HOTSWAP_TOKEN_FILE={settings.token_file} cannot be read: {exc}") from exc
