"""Data that changes starts a training, once it has settled, and once for each content."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from flows.local.data_watch import DataWatch, digest_of, watching
from flows.settings import Settings, prepare_home
from tests.conftest import at_home
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("data-watch")]

SETTLE_SECONDS = 0.3


class Data:
    """A folder that a deployment without any worker watches, and the runs that are made of it."""

    def __init__(self, directory: Path, prefect_api: str, name: str) -> None:
        self.folder = directory / "data"
        self.folder.mkdir()
        self.settings = Settings(home=directory / "home", data_settle_seconds=SETTLE_SECONDS)
        prepare_home(self.settings)
        self._api = prefect_api
        flow = self._post("flows/", {"name": "of a test"})["id"]
        tags = [f"when changed: {self.folder}"]
        self.deployment = self._post("deployments/", {"name": name, "flow_id": flow, "tags": tags})["id"]
        self.watch = self.anew()

    def anew(self) -> DataWatch:
        """Somebody who watches, as after a restart."""
        made = DataWatch(self.settings)
        made.ask()
        return made

    def look(self, watch: DataWatch | None = None) -> int:
        """How many runs there are when what is there now has settled and was looked at."""
        watch = watch or self.watch
        watch.look()
        seen = watch._seen[self.deployment]
        until(lambda: time.monotonic() > seen.since + SETTLE_SECONDS)
        watch.look()
        return self.runs()

    def runs(self) -> int:
        asked = {"deployments": {"id": {"any_": [self.deployment]}}}
        return int(self._post("flow_runs/count", asked))

    def _post(self, path: str, document: dict[str, Any]) -> Any:
        answer = requests.post(f"{self._api}/{path}", json=document, timeout=10)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture
def data(tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Data]:
    with at_home(tmp_path / "home"):
        monkeypatch.setenv("PREFECT_API_URL", prefect_api)
        yield Data(tmp_path, prefect_api, f"watched-{tmp_path.name}")


def test_new_content_starts_one_run(data: Data) -> None:
    """What was there first starts none, nor does a file that is only touched, or copied over itself."""
    first = data.folder / "monday.csv"
    first.write_text("a\n1\n")
    assert data.look() == 0
    (data.folder / "tuesday.csv").write_text("a\n2\n")
    assert data.look() == 1
    first.touch()
    assert data.look() == 1
    first.write_text("a\n1\n")
    assert data.look() == 1
    (data.folder / ".wednesday.csv.part").write_text("a\n")
    assert data.look() == 1


def test_a_restart_trains_on_nothing_twice_and_on_what_came_meanwhile(data: Data) -> None:
    """The digest of the content is kept in the home."""
    file = data.folder / "rows.csv"
    file.write_text("a\n1\n")
    assert data.look() == 0
    file.write_text("a\n2\n")
    assert data.look() == 1
    assert data.look(data.anew()) == 1
    file.write_text("a\n3\n")
    assert data.look(data.anew()) == 2


def test_content_that_comes_back_is_new_again(data: Data) -> None:
    """As what was trained on last is another one."""
    file = data.folder / "rows.csv"
    for number, content in enumerate(("a", "b", "a", "b")):
        file.write_text(content)
        assert data.look() == number


def test_a_file_that_grows_is_waited_for(data: Data) -> None:
    """A change counts when it has stayed for some time."""
    file = data.folder / "rows.csv"
    file.write_text("a\n")
    data.look()
    end = time.monotonic() + 4 * SETTLE_SECONDS
    while time.monotonic() < end:
        with file.open("a") as growing:
            growing.write("1\n")
        data.watch.look()
    assert data.runs() == 0
    assert data.look() == 1


def test_a_start_that_failed_is_tried_again(data: Data, monkeypatch: pytest.MonkeyPatch, prefect_api: str) -> None:
    """The content counts as trained on only once Prefect has the run."""
    file = data.folder / "rows.csv"
    file.write_text("a\n1\n")
    data.look()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    file.write_text("a\n2\n")
    assert data.look() == 0
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    assert data.look() == 1


def test_a_start_that_was_not_noted_is_not_repeated(data: Data) -> None:
    """A kill between the start and the note of it starts nothing twice."""
    file = data.folder / "rows.csv"
    file.write_text("a\n1\n")
    data.look()
    state = data.settings.home / "data" / f"{data.deployment}.json"
    before = state.read_text()
    file.write_text("a\n2\n")
    assert data.look() == 1
    state.write_text(before)
    assert data.look(data.anew()) == 1
    assert json.loads(state.read_text())["changes"] == 1


def test_it_watches_as_long_as_the_operator_runs(data: Data) -> None:
    """By the notices of the file system, also when the folder is made later."""
    (data.folder / "rows.csv").write_text("a\n1\n")
    state = data.settings.home / "data" / f"{data.deployment}.json"
    with watching(data.settings):
        until(state.exists)
        (data.folder / "more.csv").write_text("a\n2\n")
        until(lambda: data.runs() == 1)


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    """A file that was renamed is other data."""
    (tmp_path / "a").write_text("1")
    before = digest_of([tmp_path])
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_of([tmp_path]) != before
