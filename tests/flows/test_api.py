"""hotswap from Python: in a notebook, and where an event loop runs."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

import flows
from tests.docs.pages import DOCS, PROJECT, blocks
from tests.processes import PYTHON, Piped, without_settings

LIGHT = """
import sys
import flows
assert not {"typer", "prefect", "mlflow", "tensorflow", "pydantic"} & sys.modules.keys()
flows.train
assert not {"prefect", "mlflow", "tensorflow"} & sys.modules.keys()
"""


HEARTBEAT_SECONDS = 30.0
"""so late a kernel may answer that it is there, on a machine that is busy; it is one second else"""


def elsewhere(directory: Path, furnish: Callable[[Path], None]) -> dict[str, str]:
    """The environment of a home of its own, with nobody on the ports of the settings."""
    furnish(directory / "home")
    ports = {f"HOTSWAP_{name}_PORT": str(number) for number, name in enumerate(("REST", "GRPC", "PREFECT"), 1)}
    return {"HOTSWAP_HOME": str(directory / "home"), "HOTSWAP_MODELS_REPO": str(directory / "models"), **ports}


def test_importing_it_costs_nothing() -> None:
    """`import flows` loads no library, and its functions load those of a training when they are called."""
    subprocess.run([sys.executable, "-c", LIGHT], check=True, cwd=PROJECT)


def test_its_functions_are_documented() -> None:
    """A function's signature has the bare types, and its docstring says what each parameter means."""
    seed = inspect.signature(flows.train).parameters["seed"]
    assert (seed.annotation, seed.default) == (int, 42)
    assert "    seed: Of the weights" in str(flows.train.__doc__)
    assert str(flows.promote.__doc__).index("saved_model:") < str(flows.promote.__doc__).index("Returns:")
    assert set(flows.__all__) == {"train", "promote", "rollback", "status"}
    with pytest.raises(AttributeError, match="no attribute 'retrain'"):
        flows.retrain  # noqa: B018  (that it is none is what is tested)


def in_a_loop(homes: list[dict[str, str]]) -> None:
    """In a running event loop: a version of each home, which comes back, a rollback, and a rejection."""

    async def cells() -> None:
        for number, home in enumerate(homes):
            os.environ.update(home)
            before, handlers = dict(os.environ), logging.getLogger("flows").handlers
            assert flows.train("iris", epochs=12, seed=number).version == 1
            assert [row.model for row in flows.status().versions] == ["iris"]
            assert os.environ == before
            assert logging.getLogger("flows").handlers is handlers
        rejected = flows.train(epochs=1, min_accuracy=1.0)
        print(json.dumps([rejected.decision, rejected.version, rejected.reason]))

    asyncio.run(cells())


@pytest.mark.soak
def test_it_works_in_a_running_event_loop(furnish: Callable[[Path], None], prefect_api: str, tmp_path: Path) -> None:
    """Each call goes by the settings of now, leaves environment and logs as they were, and returns a rejection."""
    homes = [elsewhere(tmp_path / name, furnish) for name in ("first", "second")]
    (here := tmp_path / "here").mkdir()
    process = Piped({**without_settings(), "PREFECT_API_URL": prefect_api}, in_a_loop, homes, directory=here)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    decision, version, reason = json.loads(output)
    assert (decision, version) == ("rejected", None)
    assert "accuracy" in reason
    assert "training epoch=12/12" in errors
    assert not list(here.iterdir())


class Notebook:
    """A notebook's kernel."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, cell: str) -> list[tuple[str, str]]:
        """What a cell shows, by the kind of message."""
        shown: list[tuple[str, str]] = []

        def note(message: dict[str, Any]) -> None:
            content = message["content"]
            text = content.get("text") or content.get("data", {}).get("text/plain")
            if text is not None:
                shown.append((message["msg_type"], text))

        reply = self._client.execute_interactive(cell, output_hook=note, timeout=120)
        assert reply["content"]["status"] == "ok", reply["content"]
        return shown


def run_kernel(connection_file: str) -> None:
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(argv=["-f", connection_file])


@pytest.fixture
def notebook(furnish: Callable[[Path], None], prefect_api: str, python: str, tmp_path: Path) -> Iterator[Notebook]:
    """A kernel in an empty directory, with the Prefect server of the tests."""
    (here := tmp_path / "here").mkdir()
    client = BlockingKernelClient()
    client.write_connection_file()
    client.hb_channel.time_to_dead = HEARTBEAT_SECONDS
    own = {PYTHON: python, "PREFECT_API_URL": prefect_api, "IPYTHONDIR": str(tmp_path / "ipython")}
    environment = {**without_settings(), **elsewhere(tmp_path, furnish), **own}
    kernel = Piped(environment, run_kernel, client.connection_file, directory=here)
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        yield Notebook(client)
    finally:
        client.stop_channels()
        kernel.kill()
        kernel.communicate()


@pytest.mark.slow
def test_the_page_runs_in_a_notebook(notebook: Notebook, soak: bool, tmp_path: Path) -> None:
    """
    Every cell of the page about Python runs; the first shows one line of progress, which is gone at the end.

    The last one, a promotion after a rollback, is left to the long form.
    """
    first, *others = blocks(DOCS / "python.md", "python")
    shown = notebook.run(first)
    kinds = [kind for kind, text in shown if text]
    assert kinds == ["display_data", *["update_display_data"] * (len(kinds) - 2), "execute_result"]
    assert any(text.startswith("training epoch=") for _, text in shown)
    assert ("update_display_data", "") in shown
    for cell in others if soak else others[:-1]:
        notebook.run(cell)
    assert not list((tmp_path / "here").iterdir())
