"""What has happened is told: it waits on disk until it is delivered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.events import Event, Kind, outbox, tell
from flows.events.outbox import Channel
from flows.promotion import rollback
from flows.promotion.undo import PromotionUndone
from flows.reconciliation.repair import repair
from flows.settings import Settings
from tests.pipelines import Pipeline


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", models_repo=tmp_path / "models")


def told(settings: Settings, model: str) -> list[Event]:
    return [each.event for each in outbox.waiting(settings, Channel.NOTIFY) if each.event.model == model]


def test_events_wait_in_their_order_until_they_are_done(settings: Settings) -> None:
    """Every file of the queue is one event, whole; what is done is gone."""
    for number in (1, 2, 3):
        tell(settings, Event(Kind.PROMOTED, "iris", number, "better", {"label": "stable"}))
    first, *others = outbox.waiting(settings, Channel.NOTIFY)
    assert (first.event.version, first.event.facts) == (1, {"label": "stable"})
    assert len({each.id for each in (first, *others)}) == 3
    first.done()
    assert [each.event.version for each in outbox.waiting(settings, Channel.NOTIFY)] == [2, 3]


def test_the_queue_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest events make room for new ones, and what is old is news no more."""
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    for number in range(5):
        tell(settings, Event(Kind.DOWN, f"service {number}"))
    assert [each.event.model for each in outbox.waiting(settings, Channel.NOTIFY)] == [
        "service 2",
        "service 3",
        "service 4",
    ]
    monkeypatch.setattr(outbox, "MAX_AGE_SECONDS", 0.0)
    assert list(outbox.waiting(settings, Channel.NOTIFY)) == []


def test_telling_never_fails(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """A home that cannot be written is only logged."""
    settings.home.write_text("not a directory")
    tell(settings, Event(Kind.DOWN, "prefect"))
    assert "event not told kind=down model=prefect" in caplog.text


def test_what_is_told_carries_no_secret(settings: Settings) -> None:
    """Reasons are texts by users, and may quote addresses."""
    tell(settings, Event(Kind.PROMOTED, "iris", 1, "as postgresql://bob:hunter-2@db says"))
    (waiting,) = outbox.waiting(settings, Channel.NOTIFY)
    assert waiting.event.why == "as postgresql://bob:***@db says"


def test_a_file_that_is_no_event_is_set_aside(settings: Settings) -> None:
    """It does not keep the others from being delivered."""
    tell(settings, Event(Kind.DOWN, "mlflow"))
    (settings.home / "events" / "notify" / "9.x.json").write_text(json.dumps({"kind": "unknown"}))
    assert [each.event.model for each in outbox.waiting(settings, Channel.NOTIFY)] == ["mlflow"]
    assert [path.name for path in (settings.home / "events" / "notify").glob("*.unreadable")] == ["9.x.unreadable"]


def test_every_change_of_what_is_live_is_told(pipeline: Pipeline) -> None:
    """Promoted, undone, rolled back, reconciled: each with its version and the reason."""
    first, second = pipeline.promote(1), pipeline.promote(2)
    with pytest.raises(PromotionUndone):
        pipeline.promote(3, expected_kind=1)
    rollback.rollback(pipeline.deployment, reason="too slow")
    pipeline.registry.set_alias(pipeline.model, "champion", None)
    repair(pipeline.deployment)
    events = told(pipeline.settings, pipeline.model)
    assert [(each.kind, each.version) for each in events] == [
        (Kind.PROMOTED, first),
        (Kind.PROMOTED, second),
        (Kind.UNDONE, second + 1),
        (Kind.ROLLED_BACK, first),
        (Kind.RECONCILED, first),
    ]
    assert events[1].facts["previous"] == first
    assert "answers" in (events[2].why or "")
    assert events[3].why == "too slow"
