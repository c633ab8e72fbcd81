"""Whatever happens to the models repository under a running server, what is loaded goes on answering."""

from __future__ import annotations

import ctypes
import email.utils
import http.client
import itertools
import json
import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from serving.repository.model_config import ModelEntry, render
from serving.repository.version_policy import All
from serving.server import Server
from serving.settings import ServerSettings
from tests.conftest import TinyModel, wait_available
from tests.faults.bystander import ROW, undisturbed
from tests.faults.server_process import ServerProcess, server_process

TIMEOUT_SECONDS = 30.0


@pytest.fixture
def base_path(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """Where version 1 of the model ``tiny`` is; ``other`` is a model beside it."""
    for name in ("tiny", "other"):
        tiny_model(tmp_path / name, 1)
    return tmp_path / "tiny"


@pytest.fixture
def root(base_path: Path, model_server: Any) -> str:
    """The address of a server of every version of ``tiny`` and ``other``, which tries a load once."""
    config = base_path.with_name("models.config")
    config.write_text(render([ModelEntry(name, str(base_path.with_name(name)), All()) for name in ("tiny", "other")]))
    server = model_server(model_config_file=config, max_num_load_retries=0)
    for name in ("tiny", "other"):
        wait_available(server, name, 1)
    return f"http://127.0.0.1:{server.rest_port}"


def until(find: Callable[[], Any], expected: Any) -> None:
    """Wait until this is found."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (found := find()) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def states(root: str, model: str = "tiny") -> dict[int, str]:
    """The state of every version of a model."""
    rows = requests.get(f"{root}/v1/models/{model}", timeout=10).json()["model_version_status"]
    return {int(row["version"]): row["state"] for row in rows}


def errors(root: str) -> dict[int, str]:
    """What the server's own page says is wrong with each version of ``tiny``."""
    rows = requests.get(f"{root}/hotswap/models", timeout=10).json()["models"]
    return {row["version"]: row["error"] for row in rows if row["model"] == "tiny"}


def answering_version(root: str, model: str = "tiny") -> int:
    """Which version answers a request that asks for none; 0 where none does."""
    answer = requests.post(f"{root}/v1/models/{model}:predict", json={"instances": [[0.0] * 4]}, timeout=10)
    return int(answer.json()["predictions"][0][0]) if answer.ok else 0


@contextmanager
def both_undisturbed(root: str) -> Iterator[None]:
    """Version 1 of both models answers all the time."""
    with undisturbed(f"{root}/v1/models/tiny"), undisturbed(f"{root}/v1/models/other"):
        yield


def remove(path: Path, _: TinyModel) -> None:
    """What is there vanishes at one instant."""
    shutil.rmtree(path.rename(path.with_name("removed")))


def replace_by_file(path: Path, tiny_model: TinyModel) -> None:
    remove(path, tiny_model)
    path.write_text("not a directory")


def replace_by_broken_link(path: Path, tiny_model: TinyModel) -> None:
    remove(path, tiny_model)
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("disturb", "reason"),
    [
        (remove, "No such file or directory"),
        (replace_by_file, "Not a directory"),
        (replace_by_broken_link, "No such file or directory"),
    ],
)
def test_a_base_path_that_goes_changes_nothing_and_comes_back(
    root: str, base_path: Path, tiny_model: TinyModel, disturb: Callable[[Path, TinyModel], None], reason: str
) -> None:
    """What was loaded is served, the page tells what is wrong, and later versions are found once it is back."""
    with both_undisturbed(root):
        disturb(base_path, tiny_model)
        until(lambda: errors(root), {1: f"cannot list the base path {base_path}: {reason}"})
        tiny_model(base_path.with_name("other"), 2)
        until(lambda: states(root, "other"), {2: "AVAILABLE", 1: "AVAILABLE"})
        assert states(root) == {1: "AVAILABLE"}
        base_path.unlink(missing_ok=True)
        tiny_model(base_path.with_name("new"), 1).parent.rename(base_path)
        until(lambda: errors(root), {1: ""})
        tiny_model(base_path, 2)
        until(lambda: states(root), {2: "AVAILABLE", 1: "AVAILABLE"})
    assert answering_version(root) == 2


def test_a_base_path_that_is_renamed_away_and_back_changes_nothing(
    root: str, base_path: Path, tiny_model: TinyModel
) -> None:
    """The same directory in its old place is the same version: nothing is loaded again."""
    with both_undisturbed(root):
        for version in (2, 3):
            away = base_path.rename(base_path.with_name("away"))
            until(lambda: bool(errors(root)[1]), True)
            away.rename(base_path)
            until(lambda: errors(root)[1], "")
            tiny_model(base_path, version)
            until(lambda: states(root).get(version), "AVAILABLE")  # noqa: B023  (called before the next turn)
    assert set(states(root).values()) == {"AVAILABLE"}


def test_a_base_path_that_is_deleted_file_by_file_disturbs_no_other_model(
    root: str, base_path: Path, tiny_model: TinyModel
) -> None:
    """`rm -r` may look like a removal of versions on the way; what is put back is served again."""
    tiny_model(base_path, 2)
    until(lambda: states(root), {2: "AVAILABLE", 1: "AVAILABLE"})
    with undisturbed(f"{root}/v1/models/other"):
        shutil.rmtree(base_path)
        until(lambda: any(errors(root).values()), True)
        tiny_model(base_path, 1)
        tiny_model(base_path, 2)
        until(lambda: states(root), {2: "AVAILABLE", 1: "AVAILABLE"})
    assert answering_version(root) == 2


@pytest.mark.parametrize("kind", ["overwritten", "emptied", "deleted"])
def test_the_files_of_a_loaded_version_may_be_lost(
    root: str, base_path: Path, tiny_model: TinyModel, kind: str
) -> None:
    """A version is served from memory: its files are not needed any more, and later versions come as usual."""
    with both_undisturbed(root):
        for file in [path for path in (base_path / "1").rglob("*") if path.is_file()]:
            if kind == "overwritten":
                file.write_bytes(os.urandom(file.stat().st_size))
            elif kind == "emptied":
                os.truncate(file, 0)
            else:
                file.unlink()
        tiny_model(base_path, 2)
        until(lambda: states(root), {2: "AVAILABLE", 1: "AVAILABLE"})
        assert errors(root) == {2: "", 1: ""}


def test_a_corrupt_version_ends_with_its_reason(root: str, base_path: Path, tiny_model: TinyModel) -> None:
    """Both pages tell what was wrong with it; put right, it is loaded, and nobody has noticed."""
    with both_undisturbed(root):
        corrupt = tiny_model(base_path.with_name("staged"), 2)
        (corrupt / "saved_model.pb").write_bytes(b"\xff" * 1000)
        corrupt.rename(base_path / "2")
        until(lambda: states(root), {2: "END", 1: "AVAILABLE"})
        rows = requests.get(f"{root}/v1/models/tiny/versions/2", timeout=10).json()["model_version_status"]
        reason = f"Can't parse {base_path / '2' / 'saved_model.pb'} as binary proto"
        assert rows[0]["status"] == {"error_code": "DATA_LOSS", "error_message": reason}
        assert errors(root) == {2: reason, 1: ""}
        shutil.rmtree((base_path / "2").rename(base_path.with_name("corrupt")))
        tiny_model(base_path, 2)
        until(lambda: states(root), {2: "AVAILABLE", 1: "AVAILABLE"})


def test_a_server_waits_for_a_base_path_that_is_still_missing(tiny_model: TinyModel, tmp_path: Path) -> None:
    """It refuses connections until the first version is there, and serves then."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base_path = tmp_path / "not" / "yet" / "there"
    server = Server(ServerSettings(model_name="tiny", model_base_path=str(base_path), rest_port=port))
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        starting.join(1.5)  # the second poll finds nothing either
        assert starting.is_alive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 10)
        tiny_model(base_path, 3)
        starting.join(TIMEOUT_SECONDS)
        assert answering_version(f"http://127.0.0.1:{port}") == 3
    finally:
        server.stop()


def process(
    base_path: Path, *flags: str, first: Callable[[], object] | None = None
) -> AbstractContextManager[ServerProcess]:
    """A server process for every version of ``tiny``; `first` is what it begins with."""
    config = base_path.with_name("models.config")
    config.write_text(render([ModelEntry("tiny", str(base_path), All())]))
    return server_process(base_path.parent, f"--model_config_file={config}", *flags, first=first)


def address(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.rest_port}"


def be_no_more_than_an_owner() -> None:
    """Give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, effective and permitted, for which rights do not count."""
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110
    sets[1] &= ~0b110
    assert libc.capset(header, sets) == 0


def test_a_base_path_that_may_not_be_read_changes_nothing(base_path: Path, tiny_model: TinyModel) -> None:
    """Without permission, which binds root too here, what is loaded is served; with it the next version is found."""
    with process(base_path, "--max_num_load_retries=0", first=be_no_more_than_an_owner) as server:
        root = address(server)
        with undisturbed(server.url("tiny")):
            base_path.chmod(0o000)
            until(lambda: errors(root), {1: f"cannot list the base path {base_path}: Permission denied"})
            base_path.chmod(0o755)
            until(lambda: errors(root), {1: ""})
            locked = tiny_model(base_path.with_name("staged"), 2)
            (locked / "saved_model.pb").chmod(0o000)
            locked.rename(base_path / "2")
            until(lambda: states(root).get(2), "END")
            assert "Permission denied" in errors(root)[2]
            tiny_model(base_path, 3)
            until(lambda: states(root).get(3), "AVAILABLE")
        assert server.complaints() == []


def let_the_clock_jump(step: int) -> None:
    """By so many hours, each time it is read."""
    real_time, hours = time.time, itertools.count(step, step)
    time.time = lambda: real_time() + 3600.0 * next(hours)
    time.time_ns = lambda: int(time.time() * 1e9)


@pytest.mark.parametrize("step", [1, -1], ids=["forth", "back"])
def test_a_jumping_clock_does_not_matter(base_path: Path, tiny_model: TinyModel, step: int) -> None:
    """
    Polls, retries and connections go by a clock that nobody can set.

    The other one jumps by an hour each time it is read: forth, all deadlines would be over; back, none would ever come.
    """
    flags = ["--max_num_load_retries=100000", "--load_retry_interval_micros=50000"]
    with (
        process(base_path, *flags, first=partial(let_the_clock_jump, step)) as server,
        closing(http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=10)) as connection,
    ):
        root = address(server)
        connection.connect()
        connection.auto_open = False

        def ask() -> None:
            connection.request("POST", "/v1/models/tiny/versions/1:predict", json.dumps(ROW))
            answer = connection.getresponse()
            told = email.utils.parsedate_to_datetime(answer.headers["Date"])
            assert (told.timestamp() - time.time()) * step > 3000  # else the clock has not jumped
            assert (answer.status, len(answer.read()) > 0) == (200, True)

        for version in (2, 3):
            ask()
            staged = tiny_model(base_path.with_name("staged"), version)
            (staged / "saved_model.pb").rename(base_path.with_name("saved_model.pb"))
            staged.rename(base_path / str(version))
            until(lambda: states(root).get(version), "LOADING")  # noqa: B023  (called before the next turn)
            base_path.with_name("saved_model.pb").rename(base_path / str(version) / "saved_model.pb")
            until(lambda: states(root).get(version), "AVAILABLE")  # noqa: B023
        ask()


def lower_the_soft_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))


def test_as_many_files_may_be_open_as_the_system_allows(base_path: Path) -> None:
    """A low soft limit, as shells have it, does not bound the connections."""
    with process(base_path, first=lower_the_soft_limit) as server:
        soft, hard = server.process.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def test_a_server_without_free_files_recovers_by_itself(base_path: Path, tiny_model: TinyModel) -> None:
    """Who is connected is answered during the flood; after it everybody is, and what was published meanwhile comes."""
    flags = ["--max_num_load_retries=100000", "--load_retry_interval_micros=50000"]
    with process(base_path, *flags) as server, requests.Session() as session:
        predict = f"{server.url('tiny')}:predict"
        assert session.post(predict, json=ROW, timeout=10).status_code == 200
        most = server.process.num_fds() + 30
        server.process.rlimit(psutil.RLIMIT_NOFILE, (most, most))
        with ExitStack() as flood:
            for port in (server.rest_port, server.grpc_port):
                for _ in range(100):
                    flood.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            until(server.process.num_fds, most)
            tiny_model(base_path, 2)
            for _ in range(100):
                answer = session.post(f"{server.url('tiny')}/versions/1:predict", json=ROW, timeout=10)
                assert answer.status_code == 200

        def answered_by() -> int:
            try:
                return answering_version(address(server))
            except requests.ConnectionError:  # what was left of the flood comes first
                return 0

        until(answered_by, 2)
        tiny_model(base_path, 3)
        until(answered_by, 3)
        assert set(errors(address(server)).values()) == {""}
        assert server.complaints() == []
