"""What does it cost to look for new versions in a large repository?"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from clients.rest_client import RestClient
from serving.repository.model_config import ModelEntry, render
from tests.benchmarks import servers
from tests.benchmarks.report import Measurement
from tests.benchmarks.versions import wait_available

MODELS = 100
VERSIONS_OF_EACH = 10
POLLS = 20
SECONDS_BETWEEN_POLLS = 1
MAX_MILLISECONDS = 20.0


def measure() -> list[Measurement]:
    """The processor time of a server that only polls, beyond that of a server with one model and one version."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as name:
        directory = Path(name)
        saved_model = directory / "saved_model"
        servers.export_iris(saved_model)
        one = _idle_milliseconds(directory / "one", saved_model, 1, 1)
        many = _idle_milliseconds(directory / "many", saved_model, MODELS, VERSIONS_OF_EACH)
    besides = f"{one:.1f} ms with one model, {many:.1f} ms with {MODELS}, a poll every {SECONDS_BETWEEN_POLLS} s"
    return [
        Measurement(
            f"a poll of {MODELS} models with {VERSIONS_OF_EACH} versions each, processor time",
            many - one,
            "ms",
            MAX_MILLISECONDS,
            besides=besides,
        )
    ]


def _idle_milliseconds(directory: Path, saved_model: Path, models: int, versions: int) -> float:
    """Processor time by poll of a server with these models, each served by its latest version."""
    names = [f"model{number}" for number in range(models)]
    for name in names:
        for version in range(1, 1 + versions):
            # Hard links: the directories count, not the bytes in them.
            shutil.copytree(saved_model, directory / name / str(version), copy_function=os.link)
    config = directory / "models.config"
    config.write_text(render([ModelEntry(name, str(directory / name)) for name in names]))
    poll = f"--file_system_poll_wait_seconds={SECONDS_BETWEEN_POLLS}"
    with servers.hotswap(directory, f"--model_config_file={config}", poll) as server:
        with RestClient(server.rest_url) as client:
            wait_available(client, dict.fromkeys(names, 1))
        time.sleep(2 * SECONDS_BETWEEN_POLLS)  # what the start left to do
        before = server.processor_seconds
        time.sleep(POLLS * SECONDS_BETWEEN_POLLS)
        return 1e3 * (server.processor_seconds - before) / POLLS
