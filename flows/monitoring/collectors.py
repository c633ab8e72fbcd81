"""The metrics of the pipeline, each group by one collector; a part that has another one adds it to `COLLECTORS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from flows.drift.fact import kept_facts
from flows.events import Kind
from flows.events.outbox import Channel, files, queue_directory
from flows.monitoring import trainings
from flows.monitoring.journals import Journals
from flows.promotion.labels import STABLE
from flows.settings import Settings
from flows.tallies import EVENTS, RECONCILES, Tallies, Tally

_ACTIONS = ("publish", "promote", "label", "undo", "rollback", "retire", "restore", "reconcile")
"""in the journal, those that a model may not have had yet: a counter must begin at 0 to be seen to rise"""
_OUTCOMES = ("repaired", "remaining", "failed")


class Sources:
    """What the metrics are computed from."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.journals = Journals(settings.models_repo)

    @property
    def tallies(self) -> Tallies:
        return Tally(self.settings.home).read()


def what_is_live(sources: Sources) -> Iterator[Metric]:
    """Versions, labels and swaps, from the journals."""
    champion = GaugeMetricFamily("hotswap_champion_version", "the version with label stable", labels=("model",))
    labels = GaugeMetricFamily("hotswap_label_version", "the version that a label points to", labels=("model", "label"))
    published = GaugeMetricFamily("hotswap_published_versions", "published versions", labels=("model",))
    since = GaugeMetricFamily(
        "hotswap_champion_since_timestamp_seconds", "when label stable moved last", labels=("model",)
    )
    swaps = CounterMetricFamily(
        "hotswap_changes", "changes of what is live, by their name in the journal", labels=("model", "action")
    )
    for model, told in sources.journals.read().items():
        published.add_metric((model,), told.published)
        for label, version in sorted(told.labels.items()):
            labels.add_metric((model, label), version)
        if STABLE in told.labels:
            champion.add_metric((model,), told.labels[STABLE])
        if told.stable_since is not None:
            since.add_metric((model,), told.stable_since)
        for action in sorted({*_ACTIONS, *told.actions}):
            swaps.add_metric((model, action), told.actions[action])
    yield from (champion, labels, published, since, swaps)


def what_was_trained(sources: Sources) -> Iterator[Metric]:
    """Verdicts and durations of the runs that train or promote."""
    tallies = sources.tallies
    yield _verdicts(tallies)
    yield _training_seconds(tallies)
    steps = GaugeMetricFamily(
        "hotswap_training_step_seconds", "seconds of each step of the last training", labels=("model", "step")
    )
    ended = GaugeMetricFamily("hotswap_last_training_timestamp_seconds", "when it ended", labels=("model",))
    for key, by_step in tallies.get(trainings.STEP_SECONDS, {}).items():
        for step, seconds in sorted(by_step.items()):
            steps.add_metric((*json.loads(key), step), seconds)
    for key, at in tallies.get(trainings.ENDED_AT, {}).items():
        ended.add_metric(json.loads(key), at)
    yield from (steps, ended)


def what_was_repaired(sources: Sources) -> Iterator[Metric]:
    """Outcomes of reconciles that found something."""
    family = CounterMetricFamily(
        "hotswap_reconciles", "reconciles that found something, by what they came to", labels=("model", "outcome")
    )
    _add(family, sources.tallies.get(RECONCILES, {}), _OUTCOMES)
    yield family


def what_was_told(sources: Sources) -> Iterator[Metric]:
    """Events, and how many have not been delivered yet where there is somebody to deliver them to."""
    told = CounterMetricFamily("hotswap_events", "events by kind", labels=("kind",))
    counts = sources.tallies.get(EVENTS, {})
    for kind in Kind:
        told.add_metric((kind.value,), counts.get(json.dumps([kind.value]), 0))
    waiting = GaugeMetricFamily("hotswap_events_waiting", "events not delivered yet", labels=("channel",))
    for channel in Channel:
        if channel is not Channel.NOTIFY or sources.settings.notify.get_secret_value():
            waiting.add_metric((channel.value,), len(files(queue_directory(sources.settings, channel))))
    yield from (told, waiting)


def what_has_drifted(sources: Sources) -> Iterator[Metric]:
    """What the last `hotswap drift` of each model has found."""
    columns = GaugeMetricFamily("hotswap_drifted_columns", "columns that have drifted", labels=("model",))
    rows = GaugeMetricFamily("hotswap_drift_rows", "logged rows that were compared", labels=("model",))
    at = GaugeMetricFamily("hotswap_drift_timestamp_seconds", "when they were", labels=("model",))
    psi = GaugeMetricFamily("hotswap_drift_psi", "population stability index", labels=("model", "column"))
    live = GaugeMetricFamily("hotswap_live_score", "of the answers whose truth is known", labels=("model", "metric"))
    for fact in kept_facts(sources.settings.home):
        model = fact["model"]
        columns.add_metric((model,), len(fact["drifted"]))
        rows.add_metric((model,), fact["rows"])
        at.add_metric((model,), datetime.fromisoformat(fact["time"]).timestamp())
        for each in (*fact["columns"], *fact["answers"]):
            if each["psi"] is not None:
                psi.add_metric((model, each["name"]), each["psi"])
        if fact["live"] is not None:
            live.add_metric((model, fact["live"]["name"]), fact["live"]["value"])
    yield from (columns, rows, at, psi, live)


COLLECTORS: tuple[Callable[[Sources], Iterator[Metric]], ...] = (
    what_is_live,
    what_was_trained,
    what_was_repaired,
    what_was_told,
    what_has_drifted,
)


def _verdicts(tallies: Tallies) -> Metric:
    family = CounterMetricFamily(
        "hotswap_gate_verdicts", "runs that train or promote, by what they came to", labels=("model", "verdict")
    )
    _add(family, tallies.get(trainings.VERDICTS, {}), trainings.EVERY_VERDICT)
    return family


def _add(family: CounterMetricFamily, counts: Mapping[str, float], every: Sequence[str]) -> None:
    """Add the counts of each model; `every` value of the second label, as what begins at 0 can be seen to rise."""
    by_labels = {tuple(json.loads(key)): count for key, count in counts.items()}
    for model in sorted({model for model, _ in by_labels}):
        for value in every:
            family.add_metric((model, value), by_labels.get((model, value), 0))


def _training_seconds(tallies: Tallies) -> Metric:
    family = HistogramMetricFamily(
        "hotswap_training_duration_seconds", "seconds from loading data to the end of a training", labels=("model",)
    )
    bounds = [*map(str, trainings.BOUNDS_SECONDS), "+Inf"]
    for key, histogram in sorted(tallies.get(trainings.SECONDS, {}).items()):
        buckets = list(zip(bounds, accumulate(histogram["counts"]), strict=True))
        family.add_metric(json.loads(key), buckets, histogram["sum"])
    return family
