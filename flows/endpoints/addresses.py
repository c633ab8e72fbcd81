"""The hosts behind one name: a service of compose or a headless one of Kubernetes has an address for each replica."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from flows.settings import Endpoint


def every_host(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """An endpoint for each address that a name has now; one whose name cannot be found stays as it is."""
    return [each for endpoint in endpoints for each in at_addresses(endpoint, _addresses(endpoint))]


def at_addresses(endpoint: Endpoint, addresses: Sequence[str]) -> list[Endpoint]:
    """The same ports at each of these addresses; a name with one address stays, as a certificate may be for it."""
    if len(addresses) < 2:
        return [endpoint]
    url, grpc_port = urlsplit(endpoint.rest_url), endpoint.grpc_target.rpartition(":")[2]
    hosts = [f"[{address}]" if ":" in address else address for address in addresses]
    return [
        Endpoint(url._replace(netloc=f"{host}:{url.port}" if url.port else host).geturl(), f"{host}:{grpc_port}")
        for host in hosts
    ]


def _addresses(endpoint: Endpoint) -> list[str]:
    url = urlsplit(endpoint.rest_url)
    try:
        found = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    # A host may have an address of either kind.
    family = found[0][0]
    return sorted({str(each[4][0]) for each in found if each[0] == family})
