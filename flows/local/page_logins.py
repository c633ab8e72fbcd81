"""
Has the pages of MLflow and Prefect ask for the login, and answer only to names of this machine.

MLflow keeps users in a database of its own. The one here is made anew at each start, with the one user of the settings:
MLflow would else go on with the first password that it was ever given. Environments carry the password, as Prefect and
MLflow read it from there; other users of the machine cannot read them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from clients.proxies import LOOPBACK
from flows.settings import Settings, sqlite_address
from serving.repository.files import write_atomically

_CACHE_SECONDS = 60
"""how long MLflow need not hash a password again that it has found right"""


def mlflow_arguments(settings: Settings) -> Sequence[str]:
    """More arguments of ``mlflow server``; called before each start, as it clears the users of the last one."""
    if settings.login is None:
        return ()
    database = _users(settings)
    for path in (database, *(database.with_name(database.name + end) for end in ("-journal", "-wal", "-shm"))):
        path.unlink(missing_ok=True)
    lines = (
        "[mlflow]",
        "default_permission = NO_PERMISSIONS",
        f"database_uri = {sqlite_address(database).replace('%', '%%')}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        f"auth_cache_ttl_seconds = {_CACHE_SECONDS}",
    )
    write_atomically(_config(settings), "\n".join(lines) + "\n")
    return ("--app-name", "basic-auth")


def mlflow_environment(settings: Settings) -> dict[str, str]:
    """More variables of the same."""
    names = [name.strip() for name in settings.allowed_hosts.split(",") if name.strip()]
    hosts = {"MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(_with_ports(names))} if names else {}
    if settings.login is None:
        return hosts
    return {
        **hosts,
        "MLFLOW_AUTH_CONFIG_PATH": str(_config(settings)),
        "MLFLOW_AUTH_ADMIN_USERNAME": settings.login.user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": settings.login.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
    }


def prefect_environment(settings: Settings, url: str) -> dict[str, str]:
    """More variables of ``prefect server start``, whose page is at `url`: pages of other origins may not ask it."""
    cors = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
    origins = {} if cors in os.environ else {cors: url}
    return {
        **origins,
        **({} if settings.login is None else {"PREFECT_SERVER_API_AUTH_STRING": settings.login.auth_string}),
    }


def _with_ports(names: Sequence[str]) -> list[str]:
    hosts = [*(f"[[]{name}]" if ":" in name else name for name in LOOPBACK), *names]
    return [each for host in hosts for each in (host, f"{host}:*")]


def _users(settings: Settings) -> Path:
    return settings.home.absolute() / "mlflow-users.db"


def _config(settings: Settings) -> Path:
    return settings.home.absolute() / "mlflow-users.ini"
