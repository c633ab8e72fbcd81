"""Where does hotswap keep its state, and on which ports do its processes listen?"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.errors import HotswapError


class InvalidSettings(HotswapError):
    """A setting cannot be used."""


class Settings(BaseSettings):
    """Read from environment variables that start with ``HOTSWAP_``."""

    model_config = SettingsConfigDict(env_prefix="HOTSWAP_", frozen=True, use_attribute_docstrings=True)

    home: Path = Path(".hotswap")
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
    token_file: Path | None = None
    """file with the bearer token that the model server wants; `hotswap up` and `hotswap serve` make it want that"""
    server_timeout_seconds: float = Field(default=30.0, gt=0)
    """seconds that a new version has to answer before its promotion is undone"""
    keep_versions: int = Field(default=5, ge=1)
    """newest versions that stay published after a promotion, besides every labelled one"""
    reconcile_seconds: float = Field(default=5.0, ge=0)
    """seconds between two reconcile turns of `hotswap up`; 0 for none"""

    @property
    def rest_url(self) -> str:
        return f"http://{self.host}:{self.rest_port}"

    @property
    def grpc_target(self) -> str:
        return f"{self.host}:{self.grpc_port}"


def load_settings() -> Settings:
    """
    The settings of this process.

    Raises:
        InvalidSettings: A variable has a value that cannot be used; the message names it.
    """
    try:
        return Settings()
    except ValidationError as exc:
        first = exc.errors()[0]
        name = "HOTSWAP_" + "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidSettings(f"{name}={first['input']!r} cannot be used: {first['msg']}") from exc


def prepare_home(settings: Settings) -> Path:
    """
    The directory of the local state, made with its ``logs`` where it is missing.

    Raises:
        InvalidSettings: It cannot be written.
    """
    home = settings.home.absolute()
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home / "logs").close()
    except OSError as exc:
        raise InvalidSettings(
            f"{home} cannot be written ({os.strerror(exc.errno or 0)}): set HOTSWAP_HOME to a directory that can"
        ) from exc
    return home


def apply_environment(settings: Settings) -> None:
    """Tell MLflow, Prefect and TensorFlow where to keep their state and to stay quiet; what the user has set stays."""
    home = settings.home.absolute()
    defaults = {
        "HOTSWAP_HOME": str(home),
        "HOTSWAP_MODELS_REPO": str(settings.models_repo.absolute()),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "flows",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
