"""
How does a training start without waiting for one thing after the other?

A flow needs a Prefect server. Where none is configured, a temporary one is started here before anything else, on the
other core, while this process imports TensorFlow and MLflow. It keeps its records in ``PREFECT_HOME``, so a later
Prefect server shows the run, and it ends with this process, however that ends.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from flows import prefect_access, progress
from flows.labelling import STABLE, validate_label
from flows.live_server import ask_first
from flows.prefect_access import PrefectUnavailable
from flows.registry_identity import check_registry
from flows.settings import Settings, apply_environment, prepare_home
from serving.errors import HotswapError
from serving.native_logs import without_start_up_notes
from serving.redaction import redacted
from serving.repository import Repository, check_complete

if TYPE_CHECKING:
    from flows.train_and_promote import TrainOutcome

log = logging.getLogger(__name__)

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_MAX_RESTARTS = 1
_SERVER_SETTINGS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_UI_ENABLED": "0",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # its log says why it did not start
}


class InvalidParameter(HotswapError):
    """A training cannot run with this parameter."""


def train(
    settings: Settings,
    recipe: str = "iris",
    seed: int = 42,
    epochs: int | None = None,
    min_accuracy: float | None = None,
    allow_breaking: bool = False,
    bake: float = 0.0,
    reason: str | None = None,
    label: str = STABLE,
) -> TrainOutcome:
    """
    Run the flow `train_and_promote` in this process, against the Prefect server that is configured or runs already.

    Raises:
        HotswapError: It failed; nothing of what was live has changed.
    """
    check_parameters(recipe, seed, epochs, min_accuracy, bake)
    validate_label(label)
    _prepare(settings, recipe)
    from flows.train_and_promote import TrainOutcome, train_and_promote

    # Prefect keeps the parameters of a flow as they are.
    outcome = train_and_promote(
        recipe, seed, epochs, min_accuracy, allow_breaking, bake, reason and redacted(reason), label
    )
    assert isinstance(outcome, TrainOutcome)
    return outcome


def promote(
    settings: Settings,
    recipe: str,
    run: str | None = None,
    saved_model: Path | None = None,
    min_accuracy: float | None = None,
    allow_breaking: bool = False,
    bake: float = 0.0,
    reason: str | None = None,
    label: str = STABLE,
    version: int | None = None,
) -> TrainOutcome:
    """
    Run the flow `promote` as `train` runs its own, for the model of an MLflow run, a directory or a published version.

    Raises:
        HotswapError: It failed; nothing of what was live has changed.
    """
    check_parameters(recipe, min_accuracy=min_accuracy, bake=bake)
    validate_label(label)
    if sum(each is not None for each in (run, saved_model, version)) != 1:
        raise InvalidParameter("Name the model: either --run RUN_ID, --saved-model DIRECTORY or --version NUMBER")
    if saved_model is not None:
        check_complete(saved_model)
    if version is not None:
        _check_version(settings, recipe, version, label)
    _prepare(settings, recipe)
    from flows.train_and_promote import TrainOutcome
    from flows.train_and_promote import promote as promote_model

    outcome = promote_model(
        recipe, run, saved_model, min_accuracy, allow_breaking, bake, reason and redacted(reason), label, version
    )
    assert isinstance(outcome, TrainOutcome)
    return outcome


def _check_version(settings: Settings, recipe: str, version: int, label: str) -> None:
    from flows import promotion
    from flows.recipes import find_recipe

    model = find_recipe(recipe).name
    if label != STABLE:
        command = f"hotswap label {model} {label} {version}"
        raise InvalidParameter(
            f"--version makes a published version the stable one: `{command}` gives it another label"
        )
    promotion.promotable(settings, model, version)


def _prepare(settings: Settings, recipe: str) -> None:
    """See that all servers answer; then import TensorFlow and MLflow while Prefect's server starts."""
    from flows.recipes import find_recipe

    Repository(settings.models_repo).check_writable()
    prepare_home(settings)
    apply_environment(settings)
    progress.step("asking the servers")
    ask_first(settings, find_recipe(recipe).name)
    server = find_prefect(settings)
    progress.note("using the Prefect server that runs" if server is None else "starting Prefect")
    progress.note("loading TensorFlow")
    with without_start_up_notes():
        # First and alone: the slowest, while the server starts.
        import tensorflow

        tensorflow.config.list_logical_devices()

    progress.note("loading MLflow and Prefect")
    import flows.train_and_promote  # noqa: F401  (imported while the server starts)
    from flows.registry import Registry

    progress.note("opening MLflow's database")
    check_registry(settings, find_recipe(recipe).name)
    # Makes MLflow's database where there is none, while the Prefect server makes its own.
    Registry(settings.home / "artifacts").check()
    if server is not None:
        progress.note("waiting for Prefect's server")
        server.wait()
    else:
        _check_prefect(os.environ["PREFECT_API_URL"])
        prefect_access.check()


def check_parameters(
    recipe: str, seed: int = 0, epochs: int | None = None, min_accuracy: float | None = None, bake: float = 0.0
) -> None:
    """
    Raises:
        HotswapError: The flow would refuse one of these; found before anything is started.
    """
    from flows.recipes import find_recipe

    if not 0 <= seed < 2**32:
        raise InvalidParameter(f"The seed must be from 0 to {2**32 - 1}, not {seed}")
    if epochs is not None and not 1 <= epochs <= 100_000:
        raise InvalidParameter(f"The number of epochs must be from 1 to 100000, not {epochs}")
    if min_accuracy is not None and not (math.isfinite(min_accuracy) and 0 <= min_accuracy <= 1):
        raise InvalidParameter(f"The minimum accuracy is a share from 0 to 1, not {min_accuracy}")
    if not (math.isfinite(bake) and bake >= 0):
        raise InvalidParameter(f"The seconds to bake must be 0 or more, not {bake}")
    find_recipe(recipe)


def find_prefect(settings: Settings) -> TemporaryPrefect | None:
    """
    Make ``PREFECT_API_URL`` point to a server: the configured one, else that of `hotswap up`, else a temporary one.

    Returns:
        The temporary one, which may still be starting.
    """
    if "PREFECT_API_URL" in os.environ or find_running_prefect(settings):
        return None
    return TemporaryPrefect(settings)


def find_running_prefect(settings: Settings) -> bool:
    """Make ``PREFECT_API_URL`` point to the configured server or that of `hotswap up`; whether it answers."""
    api_url = os.environ.get("PREFECT_API_URL", f"http://{settings.url_host}:{settings.prefect_port}/api")
    if not _answers(api_url):
        return False
    os.environ["PREFECT_API_URL"] = api_url
    return True


class TemporaryPrefect:
    """A Prefect server for the length of this process; `PREFECT_API_URL` points to it from the start."""

    def __init__(self, settings: Settings) -> None:
        self.log_path = prepare_home(settings) / "logs" / "prefect-temporary.log"
        self.log_path.unlink(missing_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._port = listening.getsockname()[1]
            self._process = self._start_on(listening)
        self.api_url = f"http://127.0.0.1:{self._port}/api"
        os.environ["PREFECT_API_URL"] = self.api_url
        # Where the run can be looked at later, when this server is gone.
        os.environ.setdefault("PREFECT_UI_URL", f"http://{settings.url_host}:{settings.prefect_port}")
        # Registered before Prefect is imported, so that it runs after Prefect has sent its last records.
        atexit.register(self.dismiss)

    def wait(self) -> None:
        """
        Return when it answers; a start that failed, as on a machine that is busy, is repeated.

        Raises:
            PrefectUnavailable: It ended again, or took too long; the message names its log.
        """
        deadline = time.monotonic() + _START_SECONDS
        restarts = _MAX_RESTARTS
        while not _answers(self.api_url):
            has_ended = self._process.poll() is not None
            if (has_ended and not restarts) or time.monotonic() > deadline:
                raise PrefectUnavailable(f"The temporary Prefect server did not start: see {self.log_path}")
            if has_ended:
                restarts -= 1
                self._process.communicate()
                self._process = self._start()
            time.sleep(0.05)

    def dismiss(self) -> None:
        """Tell it to end, without waiting while it writes its last records."""
        self._process.terminate()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if os.environ.get("PREFECT_API_URL") == self.api_url:
            del os.environ["PREFECT_API_URL"]

    def _start(self) -> subprocess.Popen[bytes]:
        with socket.create_server(("127.0.0.1", self._port)) as listening:
            return self._start_on(listening)

    def _start_on(self, listening: socket.socket) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **_SERVER_SETTINGS}
        command = [sys.executable, "-m", "flows.temporary_prefect", str(listening.fileno())]
        with self.log_path.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=Path(__file__).parent.parent,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )


def _check_prefect(api_url: str) -> None:
    if not _answers(api_url):
        raise PrefectUnavailable(
            f"No Prefect server answers at PREFECT_API_URL={api_url}: start it with `hotswap up`, or unset the variable"
        )


def _answers(api_url: str) -> bool:
    try:
        return requests.get(f"{api_url.rstrip('/')}/health", timeout=5).status_code == 200
    except (requests.RequestException, ValueError):
        return False
