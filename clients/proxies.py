"""
Keeps requests to this machine away from proxies.

A proxy for the internet does not lead back to this machine. For all other requests ``http_proxy``, ``https_proxy``,
``all_proxy`` and ``no_proxy`` mean what they mean everywhere.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, by name or by address."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def is_reachable_by_others(host: str) -> bool:
    """Whether what listens on `host` may be reached from other machines, as by any name but localhost."""
    return not is_loopback(host) or host.strip("[]") in ("", "0.0.0.0", "::")


def is_local_target(target: str) -> bool:
    """Whether a gRPC target, such as ``127.0.0.1:8500`` or ``unix:/run/hotswap.sock``, is on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("dns:", "ipv4:", "ipv6:"):
        target = target.removeprefix(scheme)
    return is_loopback(urlsplit(f"//{target.rpartition('/')[2]}").hostname or "")


def go_straight_to(*hosts: str) -> None:
    """Make this process, its libraries and the processes it starts ask this machine and `hosts` without a proxy."""
    found = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in found.split(",") if name.strip()]
    if "*" not in names:
        names += [name for name in dict.fromkeys((*LOOPBACK, *hosts)) if name not in names]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(names)
