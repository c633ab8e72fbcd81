"""
Checks that a server serves this repository.

Whose server listens on a port cannot be seen from the port, and a reload makes a server drop everything that is not in
the ``models.config`` it is given. So before a command changes anything at a server, the repository that the server
reports is compared with the one that the command is for. One that reports none (TensorFlow Serving itself, an earlier
release) is recognized by what it serves: a version that this repository never had, or nothing of what is live here,
means that it is foreign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from clients.client import PredictClient, Served
from clients.grpc_client import GrpcClient
from clients.rest_client import RestClient
from flows.journal import BrokenJournal, Journal
from flows.settings import Endpoint
from serving.protocol.errors import (
    DeadlineExceeded,
    Forbidden,
    HotswapError,
    ServableNotFound,
    ServerUnavailable,
    ServingError,
    Unauthenticated,
)
from serving.protocol.redaction import redacted
from serving.protocol.version_status import State
from serving.repository.model_config import parse
from serving.repository.store import Repository

_NO_MODEL = "no_such_model"


class ForeignServer(HotswapError):
    """This server is not one of this repository."""


def check_is_ours(
    repository: Repository, endpoint: Endpoint, rest: RestClient, grpc: GrpcClient, is_fleet: bool = False
) -> None:
    """
    Args:
        repository: What a command is for.
        endpoint: The addresses of the server.
        rest: Its client over REST.
        grpc: Its client over gRPC.
        is_fleet: Whether it may serve a replica, which the publish agent of its host keeps.

    Raises:
        ForeignServer: What answers at `endpoint` is no model server, or not one of `repository`.
        ServerUnavailable: Nothing answers, over one of the protocols.
        DeadlineExceeded: No answer came in time.
        Unauthenticated: It refuses the token.
    """
    try:
        served, over_grpc = _identify(endpoint, rest, grpc)
    except Unauthenticated as exc:
        name = "HOTSWAP_ADMIN_TOKEN_FILE" if isinstance(exc, Forbidden) else "HOTSWAP_TOKEN_FILE"
        step = f"set {name} to the file that it was started with"
        raise Unauthenticated(f"The server at {redacted(endpoint.rest_url)} refuses the token: {step}") from exc
    if served is not None and over_grpc is not None and served.server not in (None, over_grpc):
        raise ForeignServer(
            f"{redacted(endpoint.rest_url)} and {endpoint.grpc_target} are ports of two different servers: "
            "name the two ports of one"
        )
    if served is not None and served.is_replica and not is_fleet and not repository.is_replica:
        raise ForeignServer(
            f"The server at {redacted(endpoint.rest_url)} takes its versions from a publish agent: "
            "set HOTSWAP_FLEET=true"
        )
    reason = _why_foreign(repository, served, (rest, grpc))
    if reason:
        step = "nothing was changed; set HOTSWAP_REST_PORT and HOTSWAP_GRPC_PORT, or HOTSWAP_SERVING_ENDPOINTS"
        raise ForeignServer(f"The server at {redacted(endpoint.rest_url)} {reason}: {step}")


def _identify(endpoint: Endpoint, rest: RestClient, grpc: GrpcClient) -> tuple[Served | None, str | None]:
    """What the server reports about itself over REST, and its identity over gRPC; None for what it does not report."""
    over_grpc, unreachable = None, None
    try:
        over_grpc = grpc.server()
    except ServerUnavailable as exc:  # or a server of another kind, as REST shows
        unreachable = exc
    except ServingError as exc:
        _reraise(exc, endpoint.grpc_target)
    try:
        served = rest.served()
        if served is None or served.server is None:
            _check_has_models(rest)
    except ServerUnavailable as exc:
        raise unreachable or exc from exc
    except ServingError as exc:
        _reraise(exc, redacted(endpoint.rest_url))
    if unreachable is not None:
        raise unreachable
    return served, over_grpc


def _reraise(exc: ServingError, where: str) -> NoReturn:
    if isinstance(exc, (DeadlineExceeded, Unauthenticated)):
        raise exc
    raise ForeignServer(f"What answers at {where} is no model server: {exc}") from exc


def _check_has_models(rest: RestClient) -> None:
    try:
        rest.status(_NO_MODEL)
    except ServableNotFound:
        return
    except (KeyError, TypeError, ValueError) as exc:  # JSON of another kind
        raise ServingError("its answer to a request for a model is none of a model server") from exc


def _why_foreign(repository: Repository, served: Served | None, clients: tuple[PredictClient, ...]) -> str:
    """How the server differs; empty for one of `repository`."""
    if served is None or served.repository is None:
        return _other_contents(repository, served, clients)
    there = Repository(Path(served.repository))
    if served.repository_id is None:
        if not there.root.exists():  # on another host
            return _other_contents(repository, served, clients)
        if _is_same(there.root, repository.root) or not served.rows:
            return ""
    elif served.repository_id == repository.identity():
        if served.is_replica:
            return ""
        is_copy = there.identity() == served.repository_id and there.identity_file() != repository.identity_file()
        return f"serves {there.root}, of which {repository.root} is a copy" if is_copy else ""
    return f"serves the repository {there.root}, not {repository.root}"


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _other_contents(repository: Repository, served: Served | None, clients: tuple[PredictClient, ...]) -> str:
    """How what is served differs from what `repository` has had, and from what is live in it."""
    live = _live(repository)
    models = sorted({*live, *repository.models()})
    known = {model: _ever_had(repository, model) for model in models}
    for client in clients:
        states = {model: _states(client, model) for model in models}
        for model, version in _loaded(states):
            if version not in known[model]:
                return f"serves version {version} of {model!r}, which {repository.root} never had"
        if any(live.values()) and not any(live[model] & states[model].keys() for model in live):
            listed = ", ".join(f"{model} {version}" for model in live for version in sorted(live[model]))
            if served is None or served.rows:
                return f"knows nothing of what is live in {repository.root} ({listed})"
    for row in [] if served is None else served.rows:
        model, version = row["model"], row["version"]
        if row["state"] != State.END.name and version not in known.get(model, ()):
            return f"serves version {version} of {model!r}, which {repository.root} never had"
        stamped = repository.stamp(model, version).digest if model in known else None
        if None not in (row["digest"], stamped) and row["digest"] != stamped:
            return f"serves other files as version {version} of {model!r} than {repository.root} has"
    return ""


def _live(repository: Repository) -> dict[str, set[int]]:
    """The published versions that carry a label, by model."""
    entries = parse(repository.read_config())
    return {entry.name: set(entry.labels.values()) & set(repository.versions(entry.name)) for entry in entries}


def _ever_had(repository: Repository, model: str) -> set[int]:
    found = {*repository.versions(model), *repository.retired(model)}
    try:
        entries = Journal(repository.root, model).read()
    except BrokenJournal:
        return found
    return found.union(entry.version for entry in entries if entry.version is not None)


def _states(client: PredictClient, model: str) -> dict[int, State]:
    try:
        return {each.version: each.state for each in client.status(model)}
    except ServableNotFound:
        return {}


def _loaded(states: Mapping[str, Mapping[int, State]]) -> Iterator[tuple[str, int]]:
    for model, versions in states.items():
        yield from ((model, version) for version, state in versions.items() if state is not State.END)
