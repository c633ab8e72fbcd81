"""What `hotswap up` says once it is up: where everything answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

STOP_HERE = "Ctrl-C"
STOP_DETACHED = "`hotswap down`"
_NAMES = {
    "rest": "model server, REST",
    "grpc": "model server, gRPC",
    "mlflow": "MLflow: runs and versions",
    "prefect": "Prefect: flow runs and reports",
    "operator": "operator: metrics of the pipeline",
    "logs": "logs",
}


def document(addresses: Mapping[str, str], logs: str, ports: Mapping[str, int], late: Sequence[str]) -> dict[str, Any]:
    """
    What ``--json`` prints.

    Args:
        addresses: By service.
        logs: The directory of the logs.
        ports: By the setting that changes each.
        late: The services that are not ready yet, and are tried again.
    """
    return {**addresses, "logs": logs, "ports": dict(ports), "late": list(late)}


def announce(up: Mapping[str, Any], as_json: bool, stop: str) -> None:
    """Print the document, or a table of it that says how everything is stopped."""
    if as_json:
        print(json.dumps(up), flush=True)
        return
    table = Table(box=None)
    table.add_column("up")
    table.add_column("address")
    for service, name in _NAMES.items():
        address = f"{up[service]}/metrics" if service == "operator" else up[service]
        table.add_row(name, f"{address}  (not ready: it is tried again)" if service in up["late"] else address)
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"Train with `hotswap train iris` in another terminal; stop everything with {stop}.")
