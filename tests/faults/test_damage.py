"""Bytes that change after they were written are found, and nothing is built on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.journal import START, BrokenJournal, next_record
from flows.promotion.history import history, live_at
from flows.promotion.labelling import set_label
from flows.promotion.rollback import rollback
from flows.promotion.undo import PromotionUndone
from flows.reconciliation.findings import find
from flows.reconciliation.repair import repair
from flows.reports.doctor import examine
from flows.reports.explain import explain
from serving.protocol.errors import HotswapError
from tests.pipelines import Pipeline, answered, examine_without_server


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
@pytest.mark.parametrize("served", [True, False], ids=["served", "not served"])
def test_nothing_goes_back_to_a_version_whose_files_have_changed(name: str, served: bool, pipeline: Pipeline) -> None:
    """`explain` and `doctor` find the byte; rollback and label refuse the version, and nothing moves."""
    for kind in (1, 2):
        pipeline.promote(kind)
    if not served:
        pipeline.settings = pipeline.settings.model_copy(update={"rest_port": 1, "grpc_port": 2})
    flip_byte(pipeline.repository.path(pipeline.model, 1) / name)
    assert any("another digest than the stamp" in each for each in explain(pipeline.deployment, 1).problems)
    (finding,) = (examine if served else examine_without_server)(pipeline.settings)
    assert finding.what == "the files of version 1 are not those that were published"
    before, journal = pipeline.live(), pipeline.journal.path.read_bytes()
    with pytest.raises(PromotionUndone, match=r"nothing was changed.*no longer has the digest") as caught:
        rollback(pipeline.deployment)
    assert caught.value.exit_code == 5
    with pytest.raises(HotswapError, match="no longer has the digest"):
        set_label(pipeline.deployment, "stable", 1)
    assert (pipeline.live(), pipeline.journal.path.read_bytes()) == (before, journal)
    if served:
        assert answered(pipeline) == answered(pipeline, label="stable") == {2}


NEED_THE_JOURNAL: tuple[Callable[[Pipeline], object], ...] = (
    lambda pipeline: pipeline.promote(3),
    lambda pipeline: rollback(pipeline.deployment),
    lambda pipeline: history(pipeline.deployment),
    lambda pipeline: live_at(pipeline.deployment, "2100-01-01"),
    lambda pipeline: explain(pipeline.deployment, 2),
)


def test_nothing_is_done_on_a_journal_that_was_changed(pipeline: Pipeline) -> None:
    """Whatever needs it names the line, and what is live stays as it is; the way on is in the message."""
    for kind in (1, 2):
        pipeline.promote(kind)
    before = pipeline.live()[1:]
    lines = pipeline.journal.path.read_text("utf-8").splitlines(keepends=True)
    lines[1] = lines[1].replace('"who": "', '"who": "not-')
    pipeline.journal.path.write_text("".join(lines), "utf-8")
    for action in NEED_THE_JOURNAL:
        with pytest.raises(BrokenJournal, match=r"Line 2 of .*: put a copy of the file back, or move it away"):
            action(pipeline)
        assert pipeline.live()[1:] == before
    assert answered(pipeline) == answered(pipeline, label="stable") == {2}


def test_a_changed_journal_is_reported_and_not_repaired(pipeline: Pipeline) -> None:
    """`status`, `doctor` and `reconcile` name the line; with the file moved away a new journal begins."""
    for kind in (1, 2):
        pipeline.promote(kind)
    path = pipeline.journal.path
    path.write_text(path.read_text("utf-8").replace('"version": 1', '"version": 7', 1), "utf-8")
    journal = path.read_bytes()
    (finding,) = repair(pipeline.deployment).remaining
    assert finding.what.startswith(f"Line 1 of {path}")
    assert finding in examine(pipeline.settings)
    assert pipeline.row(2).findings == (finding.what,)
    assert path.read_bytes() == journal
    path.rename(path.with_suffix(".damaged"))
    assert repair(pipeline.deployment).remaining == ()
    assert answered(pipeline, version=pipeline.promote(3)) == {3}
    assert find(pipeline.deployment) == []


def written_ahead(pipeline: Pipeline, ahead: timedelta) -> None:
    """Write the journal again as a clock would have made it that is ahead by so much."""
    lines, before = [], START
    for entry in pipeline.journal.read():
        record = next_record(before, entry.action, entry.facts, datetime.fromisoformat(entry.time) + ahead)
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        before = record["hash"]
    pipeline.journal.path.write_text("".join(lines), "utf-8")


def test_a_clock_that_was_set_back_does_not_change_the_order(offline: Pipeline) -> None:
    """What was written later counts later: promotions, history and ``--at`` follow the order of the lines."""
    first, second = offline.promote(1), offline.promote(2)
    written_ahead(offline, timedelta(hours=1))
    third = offline.promote(3)
    rollback(offline.deployment)
    entries = history(offline.deployment)[::-1]
    actions = ["publish", "promote", "publish", "promote", "publish", "promote", "rolling back", "rollback"]
    assert [entry.action for entry in entries] == actions
    assert entries[3].time > entries[4].time
    now = datetime.now(UTC)
    moment = live_at(offline.deployment, now.isoformat())
    assert (moment.live, moment.published, moment.since) == (second, (first, second), entries[-1].time)
    promoted = live_at(offline.deployment, entries[5].time)
    assert (promoted.live, promoted.published) == (third, (first, second, third))
    later = live_at(offline.deployment, (now + timedelta(days=1)).isoformat())
    assert (later.live, later.published) == (moment.live, moment.published)
    earlier = live_at(offline.deployment, (now - timedelta(days=1)).isoformat())
    assert (earlier.live, earlier.since) == (None, None)
    assert offline.promote(1) == third + 1
    assert examine_without_server(offline.settings) == []
