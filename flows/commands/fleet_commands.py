"""The command that runs on every host of a fleet."""

from __future__ import annotations

import logging
import threading
from typing import Annotated

import typer

from flows.commands.edges import plain_settings

app = typer.Typer()


@app.command()
def agent(
    once: Annotated[bool, typer.Option("--once", help="Fetch what is missing, and end.")] = False,
    repository: Annotated[
        str | None, typer.Option(metavar="ID", help="Which repository to follow, where MLflow has several.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Where Prometheus finds its metrics.")
    ] = None,
) -> None:
    """Keep this host's models as the registry says."""
    from flows.fleet.process import follow, follow_once
    from flows.local.interrupts import stop_on_signals
    from flows.settings import apply_environment

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("flows.fleet").setLevel(logging.INFO)
    settings = plain_settings()
    apply_environment(settings)
    if once:
        follow_once(settings, repository)
        return
    stop_requested = threading.Event()
    stop_on_signals(stop_requested)
    follow(settings, repository, metrics_port, stop_requested)
