"""The settings: where hotswap keeps its state, on which ports its processes listen, and what it may take."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from clients.proxies import go_straight_to
from flows.home import HOME, find_project
from flows.logins import Login, read_login
from flows.machine.instance import running
from flows.machine.restoring import find_restoring
from serving.protocol.errors import HotswapError
from serving.protocol.redaction import redact_logs, redacted

_SPECIAL = frozenset("%?")
"""characters with a meaning in the address of a SQLite file"""


PORTS = ("rest_port", "grpc_port", "mlflow_port", "prefect_port", "operator_port")
_MAX_PORT = 65_535


class InvalidSettings(HotswapError):
    """A setting has a value that cannot be used."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The addresses of one model server."""

    rest_url: str
    grpc_target: str


class Settings(BaseSettings):
    """Read from environment variables that start with ``HOTSWAP_``."""

    model_config = SettingsConfigDict(env_prefix="HOTSWAP_", frozen=True, use_attribute_docstrings=True)

    home: Path = Path(HOME)
    """directory of the local state: MLflow's and Prefect's databases, artifacts, logs"""
    models_repo: Path = Path("models_repo")
    """directory of the published models, which the model server polls"""
    host: str = "127.0.0.1"
    """address that every process listens on"""
    rest_port: int = Field(default=8501, ge=1, le=65535)
    """port of the model server's REST API"""
    grpc_port: int = Field(default=8500, ge=1, le=65535)
    """port of the model server's gRPC API"""
    mlflow_port: int = Field(default=5000, ge=1, le=65535)
    """port of the MLflow page"""
    prefect_port: int = Field(default=4200, ge=1, le=65535)
    """port of the Prefect server"""
    port_offset: int = Field(default=0, ge=0, le=57_033)
    """added to each of these ports and to the next one, so that several homes are up side by side"""
    operator_port: int = Field(default=8502, ge=1, le=65535)
    """port of the operator of `hotswap up`: metrics of the pipeline, webhooks"""
    webhook_secret_file: Path | None = None
    """file with the secret that MLflow signs its webhooks with; else `hotswap up` makes one in its home"""
    data_settle_seconds: float = Field(default=3.0, gt=0)
    """seconds that data has to stay as it is before it counts as changed"""
    allow_anonymous: bool = False
    """listen on a `HOTSWAP_HOST` that others reach also without token and login"""
    ui_user: str = ""
    """user of the pages of MLflow, Prefect and the operator that `hotswap up` serves"""
    ui_password_file: Path | None = None
    """file with that user's password, of at least 12 characters"""
    allowed_hosts: str = ""
    """further names by which the pages may be asked for, with commas between them"""
    token_file: Path | None = None
    """file with the bearer token that the model server wants; `hotswap up` and `hotswap serve` make it want that"""
    admin_token_file: Path | None = None
    """file with the token for changing the server; where there is one, `HOTSWAP_TOKEN_FILE` is for predictions alone"""
    signing_key_file: Path | None = None
    """private key that signs each version that is published; `hotswap keygen` makes one"""
    trusted_keys_file: Path | None = None
    """public keys: `hotswap up` and `hotswap serve` serve only versions that one of them has signed"""
    server_timeout_seconds: float = Field(default=30.0, gt=0)
    """seconds that a new version has to answer before its promotion is undone"""
    serving_endpoints: str = ""
    """every server that must have a version, as `REST_URL GRPC_TARGET, …`; empty: the one at the ports above"""
    fleet: bool = False
    """whether these servers are on hosts with a `hotswap agent` of their own, which follow the registry"""
    agent_poll_seconds: float = Field(default=2.0, gt=0)
    """seconds between two looks of a publish agent at the registry"""
    sandbox_server: Path | None = None
    """a `tensorflow_model_server` to try candidates on, instead of the embedded server"""
    sandbox_memory_mb: int = Field(default=2048, gt=0)
    """resident megabytes that the sandbox's server may take with candidate and champion"""
    sandbox_replay: int = Field(default=200, ge=0)
    """newest logged rows that a candidate and the live version are asked in the sandbox; 0 for none"""
    sandbox_p95_ms: float = Field(default=100.0, gt=0)
    """milliseconds within which a candidate answers 95 of 100 one-row requests in the sandbox"""

    keep_versions: int = Field(default=5, ge=1)
    """newest versions that stay published after a promotion, besides every labelled one"""
    reconcile_seconds: float = Field(default=5.0, ge=0)
    """seconds between two reconcile turns of `hotswap up`; 0 for none"""
    worker: bool = True
    """whether `hotswap up` runs a worker, which keeps TensorFlow and MLflow imported and takes 700 MB for that"""
    notify: SecretStr = SecretStr("")
    """addresses that are told what happens, as Apprise writes them: `slack://… mailto://…`; spaces between them"""
    request_log: float = Field(default=0.0, ge=0, le=1)
    """share of the requests that the model server logs, with their answers, in `HOTSWAP_HOME/requests`; 0 for none"""
    request_log_leave_out: str = ""
    """columns that the request log leaves out, separated by commas"""
    request_log_hash: str = ""
    """columns of which the request log keeps a keyed hash only, separated by commas"""
    request_log_key_file: Path | None = None
    """file with the key of these hashes, at least 16 bytes"""

    @field_validator("home", "models_repo", mode="before")
    @classmethod
    def _check_directory(cls, given: object) -> object:
        if "://" in str(given):
            raise ValueError(
                "it must be a directory, as renames in it have to be atomic and its files are watched; "
                "an object store can keep MLflow's artifacts instead"
            )
        return given

    @field_validator("serving_endpoints")
    @classmethod
    def _check_endpoints(cls, text: str) -> str:
        _parse_endpoints(text)
        return text

    @property
    def login(self) -> Login | None:
        """
        Who may use the pages; None for everybody.

        Raises:
            InvalidSettings: It cannot be read.
        """
        try:
            return read_login(self.ui_user, self.ui_password_file)
        except ValueError as exc:
            raise InvalidSettings(str(exc)) from exc

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every server that must have a version; without `serving_endpoints` the one at the ports of the settings."""
        return _parse_endpoints(self.serving_endpoints) or (Endpoint(self.rest_url, self.grpc_target),)

    @property
    def request_log_directory(self) -> Path:
        return self.home.absolute() / "requests"

    @property
    def url_host(self) -> str:
        """`host` as a client connects to it: not the address that stands for all interfaces of this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host

    @property
    def rest_url(self) -> str:
        return f"http://{self.url_host}:{self.rest_port}"

    @property
    def grpc_target(self) -> str:
        return f"{self.url_host}:{self.grpc_port}"


def _parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    endpoints = []
    for each in filter(str.strip, text.split(",")):
        match each.split():
            case [url, target] if url.startswith(("http://", "https://")) and ":" in target and "//" not in target:
                endpoints.append(Endpoint(url.rstrip("/"), target))
            case _:
                raise ValueError(
                    f"{each.strip()!r} is no endpoint: write http://HOST:REST_PORT HOST:GRPC_PORT, commas between them"
                )
    return tuple(endpoints)


def load_settings() -> Settings:
    """
    The settings of this process; home and repository that are not set are those of the project around it.

    Raises:
        InvalidSettings: A variable has a value that cannot be used; the message names it.
    """
    try:
        return _with_ports(_of_project(Settings()))
    except OSError as exc:
        raise InvalidSettings(
            f"The current directory cannot be used ({exc.strerror}): change to one that is there"
        ) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        name = "HOTSWAP_" + "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidSettings(
            f"{name}={redacted(repr(first['input']))} cannot be used: {first['msg'].removeprefix('Value error, ')}"
        ) from exc


def _of_project(settings: Settings) -> Settings:
    here = Path.cwd()
    project = find_project(here)
    if project == here:
        return settings
    defaults = {"home": project / settings.home, "models_repo": project / settings.models_repo}
    found = {name: path for name, path in defaults.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=found)


def _with_ports(settings: Settings) -> Settings:
    """With the offset; ports that are not set are those of the `hotswap up` that runs in this home."""
    if "port_offset" in settings.model_fields_set:
        moved = {name: getattr(settings, name) + settings.port_offset for name in PORTS}
        for name, port in moved.items():
            if port > _MAX_PORT:
                raise InvalidSettings(f"HOTSWAP_PORT_OFFSET={settings.port_offset} makes the {name} {port}: lower it")
        return settings.model_copy(update=moved)
    up = running(settings.home.absolute()).get("ports", {})
    unset = [name for name in PORTS if name not in settings.model_fields_set]
    return settings.model_copy(update={name: up[variable(name)] for name in unset if variable(name) in up})


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"HOTSWAP_{name.upper()}"


def prepare_home(settings: Settings) -> Path:
    """
    The directory of the local state, made with what logs and Prefect need where it is missing.

    Raises:
        InvalidSettings: It cannot be written.
    """
    home = settings.home.absolute()
    try:
        for name in ("logs", "prefect"):
            (home / name).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home / "logs").close()
    except OSError as exc:
        raise InvalidSettings(
            f"{home} cannot be written ({os.strerror(exc.errno or 0)}): set HOTSWAP_HOME to a directory that can"
        ) from exc
    return home


def _login_variables(settings: Settings) -> dict[str, str]:
    """What MLflow's and Prefect's clients send to the pages of `hotswap up`, and to no other address."""
    if (login := settings.login) is None:
        return {}
    variables = {}
    own = f"http://{settings.url_host}:{settings.prefect_port}"
    if os.environ.get("PREFECT_API_URL", own).startswith(own) and "PREFECT_API_KEY" not in os.environ:
        variables["PREFECT_API_AUTH_STRING"] = login.auth_string
    if os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/") == f"http://{settings.url_host}:{settings.mlflow_port}":
        variables |= {"MLFLOW_TRACKING_USERNAME": login.user, "MLFLOW_TRACKING_PASSWORD": login.password}
    return variables


def sqlite_address(file: Path) -> str:
    """The address of a SQLite file, whatever characters its path has."""
    if _SPECIAL.isdisjoint(str(file)):
        return f"sqlite:///{file}"
    return f"sqlite:///file:{quote(str(file))}?uri=true"


def _check_restored(settings: Settings) -> None:
    if interrupted := find_restoring(settings.home.absolute(), settings.models_repo.absolute()):
        raise InvalidSettings(
            f"A restore to {interrupted.home} and {interrupted.models_repo} was interrupted: run the same"
            " `hotswap restore` again, and it is finished"
        )


def apply_environment(settings: Settings) -> None:
    """
    Set where MLflow, Prefect and TensorFlow keep their state, and keep them quiet; what the user has set stays.

    Raises:
        InvalidSettings: Home or repository has only a part of a backup yet.
    """
    _check_restored(settings)
    home = settings.home.absolute()
    defaults = {
        "HOTSWAP_HOME": str(home),
        "HOTSWAP_MODELS_REPO": str(settings.models_repo.absolute()),
        "MLFLOW_TRACKING_URI": sqlite_address(home / "mlflow.db"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    if _SPECIAL.intersection(str(home)) and "PREFECT_API_DATABASE_CONNECTION_URL" not in os.environ:
        # Prefect itself writes the path into the address as it is.
        address = sqlite_address(home / "prefect" / "prefect.db").replace("sqlite:", "sqlite+aiosqlite:")
        defaults["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = address
    for name, value in {**defaults, **_login_variables(settings)}.items():
        os.environ.setdefault(name, value)
    go_straight_to(settings.host)
    redact_logs()
