"""The commands about the processes of one machine: `hotswap up`, `down` and `logs`."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.edges import at_work, plain_settings, show
from flows.commands.options import Json
from flows.console import progress

_FOLLOW_SECONDS = 0.2
_NO_SERVICES = frozenset({"error", "terminal"})

app = typer.Typer()


def _services(incomplete: str) -> list[str]:
    from flows.settings import load_settings
    from serving.protocol.errors import HotswapError

    try:
        return [name for name in _logs(load_settings().home) if name.startswith(incomplete)]
    except HotswapError:  # a message would only disturb the typing
        return []


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Come back once all of it runs.")] = False,
    port_offset: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Add this to every port; as HOTSWAP_PORT_OFFSET.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run servers, pages, worker and operator, until Ctrl-C."""
    if port_offset is not None:
        os.environ["HOTSWAP_PORT_OFFSET"] = str(port_offset)
    with progress.shown("starting model server, MLflow page and Prefect server", logging.WARNING) as close:
        from flows.local import announcement, detached, stack
        from flows.machine.log_file import keep_log
        from flows.settings import prepare_home

        settings = plain_settings()
        if detach:
            started = detached.start(settings)
            close()
            announcement.announce(started, as_json, announcement.STOP_DETACHED)
            return
        keep_log("flows.local.supervision", prepare_home(settings) / "logs" / "up.log")
        stack.up(settings, as_json, close)


@app.command()
def down(as_json: Json = False) -> None:
    """Stop what `hotswap up` has started in this home."""
    with at_work("stopping") as settings:
        from flows.local import detached

        home, pid = str(settings.home.absolute()), detached.stop(settings)
    text = f"Nothing was up in {home}." if pid is None else f"Stopped hotswap in {home}, process {pid}."
    show({"home": home, "stopped": pid is not None, "pid": pid}, text, as_json)


@app.command()
def logs(
    service: Annotated[
        str | None, typer.Argument(autocompletion=_services, help="Such as worker or mlflow; all when not given.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many of the last lines of each.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show the logs of the processes of `hotswap up`."""
    if follow and as_json:
        raise typer.BadParameter("--follow goes on for ever, and --json is one document")
    known = _logs(plain_settings().home)
    if service is not None and service not in known:
        raise typer.BadParameter(f"there is no log of {service!r}; there are {', '.join(known) or 'none yet'}")
    chosen = known if service is None else {service: known[service]}
    if as_json:
        print(json.dumps({name: _last(path, lines) for name, path in chosen.items()}))
        return
    width = max(map(len, chosen), default=0)
    prefixes = {name: f"{name:<{width}} | " if service is None else "" for name in chosen}
    ends = {name: path.stat().st_size for name, path in chosen.items()}
    for name, path in chosen.items():
        for line in _last(path, lines):
            print(f"{prefixes[name]}{line}")
    while follow:
        for name, path in chosen.items():
            ends[name] = _print_added(path, ends[name], prefixes[name])
        time.sleep(_FOLLOW_SECONDS)


def _logs(home: Path) -> dict[str, Path]:
    """The logs by the name of their service, with a hyphen where that has a space."""
    found = sorted((home / "logs").glob("*.log"))
    return {path.stem: path for path in found if path.stem not in _NO_SERVICES}


def _last(path: Path, count: int) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as log:
        return [line.rstrip("\n") for line in deque(log, maxlen=count)]


def _print_added(path: Path, start: int, prefix: str) -> int:
    """Print what was added behind `start` bytes; where it ends now."""
    with path.open("rb") as log:
        size = os.fstat(log.fileno()).st_size
        log.seek(start if start <= size else 0)  # it begins anew when it is too large
        whole, newline, _ = log.read().rpartition(b"\n")
        for line in whole.decode("utf-8", "replace").splitlines():
            print(f"{prefix}{line}", flush=True)
        return (start if start <= size else 0) + len(whole) + len(newline)
