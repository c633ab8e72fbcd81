"""Versions come and go at full load: no request fails, and each is answered by a version that was there for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import requests

from clients.grpc_client import GrpcClient
from serving.protocol.version_status import State
from serving.repository.model_config import ModelEntry, render
from serving.repository.version_policy import All
from tests.conftest import TinyModel
from tests.faults.server_process import PROJECT, ServerProcess, server_process
from tests.faults.spells import Request, Spell

pytestmark = pytest.mark.xdist_group("swaps-under-load")

SWAPS = 4
SOAK_SWAPS = 200
SWAPS_PER_REMOVAL = 4
REQUESTS_PER_SWAP = 400
TIMEOUT_SECONDS = 30.0
LOG_TICK_SECONDS = 0.001
EVENT = re.compile(
    r"^(\S+ \S+) INFO serving\.lifecycle\.manager version (available|unloading) model=tiny version=(\d+)", re.M
)


class Operator:
    """Publishes, labels and retires versions of ``tiny``, and remembers what it did when."""

    def __init__(self, base_path: Path, tiny_model: TinyModel, client: GrpcClient) -> None:
        self.surely_available: list[Spell] = []
        self.perhaps_labelled: list[Spell] = []
        self._base_path = base_path
        self._tiny_model = tiny_model
        self._client = client

    def publish(self, version: int) -> None:
        """Return once it is available."""
        self._tiny_model(self._base_path, version)
        self._wait(version, State.AVAILABLE)
        self.surely_available.append(Spell(version, time.time()))

    def label(self, version: int) -> None:
        """Let ``stable`` point at it."""
        began = time.time()
        self._client.reload([ModelEntry("tiny", str(self._base_path), All(), {"stable": version})])
        if self.perhaps_labelled:
            self.perhaps_labelled[-1].until = time.time()
        self.perhaps_labelled.append(Spell(version, began))

    def retire(self, version: int) -> None:
        """Return once it is gone."""
        next(spell for spell in reversed(self.surely_available) if spell.version == version).until = time.time()
        away = self._base_path.with_name(f"retired-{len(self.surely_available)}-{version}")
        (self._base_path / str(version)).rename(away)
        self._wait(version, State.END)

    def _wait(self, version: int, state: State) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (version, state) not in [(each.version, each.state) for each in self._client.status("tiny")]:
            assert time.monotonic() < deadline
            time.sleep(0.005)


@contextmanager
def asking(server: ServerProcess) -> Iterator[list[Request]]:
    """Clients ask during the block; their requests are in the list after it."""
    ports = json.dumps({"rest": server.rest_port, "grpc": server.grpc_port})
    command = [sys.executable, "-m", "tests.faults.asker", ports]
    found: list[Request] = []
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield found
        lines, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    found += [Request(*json.loads(line)) for line in lines.splitlines()]


def answered(server: ServerProcess) -> int:
    """How many requests the server has answered well."""
    page = requests.get(f"http://127.0.0.1:{server.rest_port}/metrics", timeout=10).text
    found = re.search(r'request_count\{model_name="tiny",status="OK"\} (\d+)', page)
    return int(found[1]) if found else 0


def wait_answered(server: ServerProcess, count: int) -> None:
    """Return when so many more requests have been answered."""
    enough, deadline = answered(server) + count, time.monotonic() + TIMEOUT_SECONDS
    while answered(server) < enough:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def recorded(log: str) -> list[Spell]:
    """When each version was available, by the server's log, which has whole milliseconds."""
    spells: dict[int, Spell] = {}
    ended: list[Spell] = []
    for text, event, number in EVENT.findall(log):
        moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").timestamp()
        if event == "available":
            spells[int(number)] = Spell(int(number), moment)
        else:
            spell = spells.pop(int(number))
            spell.until = moment + LOG_TICK_SECONDS
            ended.append(spell)
    return [*ended, *spells.values()]


def by_version(spells: list[Spell]) -> defaultdict[int, list[Spell]]:
    found = defaultdict(list)
    for spell in spells:
        found[spell.version].append(spell)
    return found


def wrongly_answered(asked: list[Request], available: list[Spell], operator: Operator) -> list[Request]:
    """
    The requests that failed, or that the version which answered should not have answered.

    It must have been available; it must have had the label that was asked for, or else no higher version may have been
    available for all the time of the request.
    """

    there, labelled = by_version(available), by_version(operator.perhaps_labelled)

    def is_right(request: Request) -> bool:
        version = request.answer
        if isinstance(version, str) or not any(spell.touches(request) for spell in there[version]):
            return False
        if request.label:
            return any(spell.touches(request) for spell in labelled[version])
        higher = (spell for spell in operator.surely_available if spell.version > version)
        return not any(spell.covers(request) for spell in higher)

    return [request for request in asked if not is_right(request)]


def test_no_request_fails_and_each_is_answered_by_an_available_version(
    tiny_model: TinyModel, tmp_path: Path, soak: bool
) -> None:
    """Thousands of requests over REST and gRPC, for the model and for its label, during swaps and roll backs."""
    swaps = SOAK_SWAPS if soak else SWAPS
    base_path = tmp_path / "tiny"
    for version in range(1, swaps + 2):
        tiny_model(tmp_path / "built", version)
    tiny_model(base_path, 1)
    config, monitoring = tmp_path / "models.config", tmp_path / "monitoring.config"
    config.write_text(render([ModelEntry("tiny", str(base_path), All())]))
    monitoring.write_text("prometheus_config { enable: true path: '/metrics' }")
    flags = [f"--model_config_file={config}", f"--monitoring_config_file={monitoring}"]
    with server_process(tmp_path, *flags) as server, GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
        operator = Operator(base_path, tiny_model, client)
        operator.label(1)
        operator.surely_available.append(Spell(1, time.time()))
        with asking(server) as asked:
            wait_answered(server, REQUESTS_PER_SWAP // 2)
            for version in range(2, swaps + 2):
                operator.publish(version)
                operator.label(version)
                wait_answered(server, REQUESTS_PER_SWAP // 2)
                if version % SWAPS_PER_REMOVAL == 0:  # a roll back, and forth again
                    operator.label(version - 1)
                    operator.retire(version)
                    operator.publish(version)
                    operator.label(version)
                operator.retire(version - 1)
                wait_answered(server, REQUESTS_PER_SWAP // 2)
        log = server.log.read_text()
        assert server.complaints() == []

    available = recorded(log)
    assert len(available) == swaps + 1 + swaps // SWAPS_PER_REMOVAL
    assert wrongly_answered(asked, available, operator) == []
    assert {request.answer for request in asked} == set(range(1, swaps + 2))
    assert len(asked) >= swaps * REQUESTS_PER_SWAP
    assert min(Counter(request.label for request in asked).values()) >= len(asked) // 4
