"""
``make screenshots``: takes the pictures of the MLflow and Prefect pages that the README shows.

A temporary home, `hotswap up`, two real trainings, and Chromium (`apt-get install chromium`), driven by its DevTools
protocol because the pages take a moment to draw that ``--screenshot`` does not wait for.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from PIL import Image
from websockets.sync.client import connect

from tests.docs.pages import DOCS, isolated_environment

IMAGES = DOCS / "images"
MAX_BYTES = 150_000
WINDOW = (1280, 800)
COLOURS = 128
_DEADLINE_SECONDS = 60.0
_SETTLE_SECONDS = 4.0
_CLOSE_ASSISTANT = """
[...document.querySelectorAll('button')].filter(each => /close/i.test(each.getAttribute('aria-label') || ''))
    .forEach(each => each.click())
"""


class Page:
    """One tab of Chromium."""

    def __init__(self, websocket_url: str) -> None:
        self._socket = connect(websocket_url, max_size=None)
        self._calls = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol; its result."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=_DEADLINE_SECONDS))
            if answer.get("id") == self._calls:
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str, expected_text: str) -> None:
        """Go to a page and wait until it shows a text, and then until it has been drawn."""
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        shown = f"document.body.innerText.includes({json.dumps(expected_text)})"
        while not self.call("Runtime.evaluate", expression=shown)["result"].get("value"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} does not show {expected_text!r}")
            time.sleep(0.2)
        self.call("Runtime.evaluate", expression=_CLOSE_ASSISTANT)
        time.sleep(_SETTLE_SECONDS)

    def save(self, path: Path) -> None:
        """Keep what the window shows as a PNG of few colours."""
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        picture = Image.open(io.BytesIO(data)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        picture.save(path, optimize=True)
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}")
        print(path, path.stat().st_size, "bytes")


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Chromium without a window."""
    program = shutil.which("chromium")
    if program is None:
        raise FileNotFoundError("chromium is not installed: apt-get install chromium")
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={profile}"]
    running = subprocess.Popen([*command, "about:blank"], stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        address = next(line.split()[-1] for line in running.stderr if line.startswith("DevTools listening"))
        port = address.split("/")[2]
        (tab,) = (each for each in requests.get(f"http://{port}/json", timeout=10).json() if each["type"] == "page")
        page = Page(tab["webSocketDebuggerUrl"])
        page.call(
            "Emulation.setDeviceMetricsOverride", width=WINDOW[0], height=WINDOW[1], deviceScaleFactor=1, mobile=False
        )
        yield page
    finally:
        running.terminate()
        running.wait()


def place(directory: Path) -> dict[str, str]:
    """A home and a repository of their own."""
    return isolated_environment(
        HOTSWAP_HOME=str(directory / ".hotswap"), HOTSWAP_MODELS_REPO=str(directory / "models_repo")
    )


@contextmanager
def pages(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """`hotswap up`; the addresses that it prints."""
    hotswap = [sys.executable, "-m", "flows.cli"]
    running = subprocess.Popen([*hotswap, "up", "--json"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        addresses: dict[str, str] = json.loads(running.stdout.readline())
        for seed in ("1", "2"):
            subprocess.run([*hotswap, "train", "iris", "--seed", seed], env=environment, check=True)
        yield addresses
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


def main() -> None:
    """Take both pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, pages(place(Path(directory))) as addresses:
        mlflow, prefect = addresses["mlflow"], addresses["prefect"]
        model = requests.get(
            f"{mlflow}/api/2.0/mlflow/registered-models/alias", params={"name": "iris", "alias": "champion"}, timeout=10
        ).json()["model_version"]
        run = requests.get(f"{mlflow}/api/2.0/mlflow/runs/get", params={"run_id": model["run_id"]}, timeout=10).json()[
            "run"
        ]["info"]
        sort = {"sort": "START_TIME_DESC"}
        flow_run = requests.post(f"{prefect}/api/flow_runs/filter", json=sort, timeout=10).json()[0]
        with browser(Path(directory) / "profile") as page:
            page.open(f"{mlflow}/#/experiments/{run['experiment_id']}/runs/{run['run_id']}", "Registered models")
            page.save(IMAGES / "mlflow-run.png")
            page.open(f"{prefect}/runs/flow-run/{flow_run['id']}", "Completed")
            page.save(IMAGES / "prefect-run.png")


if __name__ == "__main__":
    main()
