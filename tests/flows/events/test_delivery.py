"""Events reach Prefect and the addresses of ``HOTSWAP_NOTIFY``, over real sockets, whatever is down for a while."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from flows.events import Event, Kind, tell
from flows.events.delivery import delivering, flush
from flows.events.outbox import Channel, files, queue_directory
from flows.settings import Settings
from tests.ports import free_ports
from tests.sinks import HttpSink, MailSink, listening
from tests.waiting import until

UNDONE = Event(Kind.UNDONE, "iris", 7, "it answers differently", {"previous": 6, "run_id": "1f2e"})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Nobody listens on the port of Prefect."""
    return Settings(home=tmp_path / "home", models_repo=tmp_path / "models", prefect_port=free_ports(1)[0])


def notifying(settings: Settings, *addresses: str) -> Settings:
    return settings.model_copy(update={"notify": SecretStr(" ".join(addresses))})


def left(settings: Settings, channel: Channel = Channel.NOTIFY) -> int:
    return len(files(queue_directory(settings, channel)))


def test_a_webhook_and_a_mailbox_are_told(settings: Settings) -> None:
    """Each address gets every event once, with model, version, reason and facts; then the queue is empty."""
    with listening(HttpSink()) as web, listening(MailSink()) as mail:
        settings = notifying(settings, web.address, mail.address)
        tell(settings, UNDONE)
        flush(settings)
    (posted,), (sent,) = web.received, mail.received
    assert (posted["title"], posted["type"]) == ("hotswap: iris version 7 is undone", "failure")
    assert posted["message"].splitlines()[0] == "it answers differently"
    assert "previous: 6" in posted["message"]
    assert (sent["subject"], sent["to"]) == ("hotswap: iris version 7 is undone", "ops@example.org")
    assert "it answers differently" in sent.get_body(("plain", "html")).get_content()
    assert left(settings) == 0


def test_what_a_sink_does_not_take_is_kept_until_it_does(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """A command ends within seconds and loses nothing; the other sinks are told once, not again."""
    (port,) = free_ports(1)
    with listening(HttpSink()) as other:
        settings = notifying(settings, other.address, f"json://127.0.0.1:{port}/secret-of-the-sink")
        tell(settings, UNDONE)
        began = time.monotonic()
        flush(settings)
        assert time.monotonic() - began < 10
        assert left(settings) == 1
        assert "secret-of-the-sink" not in caplog.text
        assert f"127.0.0.1:{port}" in caplog.text
        with listening(HttpSink(port)) as late:
            flush(settings)
    assert (len(other.received), len(late.received), left(settings)) == (1, 1, 0)


def test_the_operator_tries_until_a_sink_is_back(settings: Settings) -> None:
    """Meanwhile a command leaves the queue to it, and events keep their order."""
    (port,) = free_ports(1)
    settings = notifying(settings, f"json://127.0.0.1:{port}")
    with delivering(settings):
        for version in (1, 2):
            tell(settings, Event(Kind.PROMOTED, "iris", version))
        until((queue_directory(settings, Channel.NOTIFY) / "lock").exists)
        flush(settings)
        with listening(HttpSink(port)) as late:
            until(lambda: left(settings) == 0)
    assert [each["title"] for each in late.received] == [
        "hotswap: iris version 1 is promoted",
        "hotswap: iris version 2 is promoted",
    ]


def test_telling_waits_for_nobody(settings: Settings) -> None:
    """A sink that accepts a connection and never answers holds up neither the one who tells nor what comes after."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = notifying(settings, f"json://127.0.0.1:{silent.getsockname()[1]}")
        with delivering(settings):
            began = time.monotonic()
            for version in range(20):
                tell(settings, Event(Kind.PROMOTED, "iris", version))
            assert time.monotonic() - began < 2
    assert left(settings) == 20


def test_nobody_is_notified_without_an_address(settings: Settings) -> None:
    """The events wait: `hotswap up` may know addresses that this command does not."""
    tell(settings, UNDONE)
    flush(settings)
    assert left(settings) == 1


def test_prefect_has_the_event(settings: Settings, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """About a resource that automations can match, with reason and facts, and when it happened."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    tell(settings, UNDONE)
    flush(settings)
    assert left(settings, Channel.PREFECT) == 0

    def found() -> list[dict[str, Any]]:
        wanted = {"filter": {"event": {"name": ["hotswap.undone"]}}}
        events: list[dict[str, Any]] = requests.post(f"{prefect_api}/events/filter", json=wanted, timeout=10).json()[
            "events"
        ]
        return [each for each in events if each["payload"].get("run_id") == "1f2e"]

    until(found)
    (event,) = found()
    assert event["resource"] == {
        "prefect.resource.id": "hotswap.model.iris",
        "prefect.resource.name": "iris",
        "hotswap.version": "7",
    }
    assert event["payload"] == {"version": 7, "why": "it answers differently", "previous": 6, "run_id": "1f2e"}


def test_what_is_meant_for_prefect_waits_for_it(settings: Settings) -> None:
    """Where none answers, a command does not wait for it."""
    tell(settings, UNDONE)
    began = time.monotonic()
    flush(settings)
    assert time.monotonic() - began < 2
    assert left(settings, Channel.PREFECT) == 1
