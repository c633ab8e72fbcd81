"""The history of a model says what was live at every moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from flows.promotion.deployment import Deployment
from flows.promotion.history import history, live_at, parse_time
from flows.promotion.rollback import rollback
from flows.promotion.undo import PromotionUndone
from flows.settings import Settings
from serving.protocol.errors import InvalidRequest, VersionNotFound
from tests.pipelines import Pipeline


def test_what_was_live_at_every_moment(offline: Pipeline) -> None:
    """Before the first entry nothing was; after each promotion and the rollback it is the version of then."""
    start = datetime.now(UTC).isoformat()
    first, second = offline.promote(1), offline.promote(2)
    rollback(offline.deployment)
    entries = history(offline.deployment)[::-1]
    begun = ["publish", "promote", "publish", "promote", "rolling back"]
    assert [entry.action for entry in entries] == [*begun, "rollback"]
    then = [live_at(offline.deployment, entry.time) for entry in entries]
    assert [moment.live for moment in then] == [None, first, first, second, second, first]
    both = (first, second)
    assert [moment.published for moment in then] == [(first,), (first,), both, both, both, (first,)]
    assert then[1].run_id == offline.run.id
    assert then[1].digest == offline.repository.stamp(offline.model, first).digest
    before = live_at(offline.deployment, start)
    assert (before.live, before.published, before.since) == (None, (), None)


def test_an_undone_version_was_never_live(offline: Pipeline) -> None:
    """Its publication and its end are in the history, and the version before it was live all the time."""
    first = offline.promote(1)
    with pytest.raises(PromotionUndone):
        offline.promote(2, expected_kind=3)
    newest = history(offline.deployment)[0]
    assert newest.action == "undo"
    assert live_at(offline.deployment, newest.time).live == first


def test_times_have_an_offset_or_are_local() -> None:
    """The same moment in two zones is one; a time without an offset is this machine's."""
    assert parse_time("2026-11-22T10:00+02:00") == parse_time("2026-11-22T08:00Z")
    assert parse_time("2026-11-22T10:00") == datetime(2026, 11, 22, 10).astimezone()
    assert parse_time("2026-11-22").utcoffset() == timedelta(0)
    assert parse_time("2026-11-22T10:00-01:30") == datetime(2026, 11, 22, 10, tzinfo=timezone(timedelta(hours=-1.5)))


@pytest.mark.parametrize(
    "text", ["yesterday", "", "2026-13-01", "25:00", "2026-11-22T10:00+99:00", "9999-12-31T23:59-23:59"]
)
def test_what_is_no_time_is_reported(text: str) -> None:
    """The message shows how a time is written."""
    with pytest.raises(InvalidRequest, match="2026-11-22T10:00"):
        parse_time(text)


def test_an_unknown_model_has_no_history(tmp_path: Path) -> None:
    """The message names the models there are."""
    with pytest.raises(VersionNotFound, match="known are: none yet"):
        history(Deployment(Settings(home=tmp_path, models_repo=tmp_path), "nobody"))
