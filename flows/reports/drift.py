"""Holds what the request log has of a model against what a version was trained on, and records what comes of it."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.drift.comparison import Limits
from flows.drift.fact import keep_fact
from flows.drift.figures import drift_figure
from flows.drift.logged import logged_rows
from flows.drift.profile import Profile
from flows.drift.report import Comparison, DriftReport, Verdict, held_against, markdown
from flows.drift.truth import Truth, live_score
from flows.events import Event, Kind, tell
from flows.gate.figures import as_png
from flows.parameters import DriftParameters, InvalidParameter, check_bounds
from flows.promotion.deployment import Deployment
from flows.promotion.history import parse_time
from flows.settings import Settings
from flows.tables.schema import Schema
from serving.protocol.errors import HotswapError, InvalidRequest, VersionNotFound
from serving.request_log.columns import read_key

log = logging.getLogger(__name__)

_AGO = re.compile(r"(\d+) ?(min|h|d)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days"}


class NoProfile(HotswapError):
    """A version keeps nothing of the data that it was trained on."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be compared."""

    version: int | None = None
    """whose training data it is; None: that of the stable one"""
    directory: Path | None = None
    """of the request log; None: that of `hotswap up`"""
    since: str | None = None
    """a time, or how long ago"""
    truth: Truth | None = None
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Found:
    """A report, with its page and its picture."""

    report: DriftReport
    page: str
    picture: bytes
    """a PNG; empty where there is nothing to see"""


def examine(deployment: Deployment, asked: Asked) -> Found:
    """
    Compare, and keep what comes of it: in MLflow, as a fact for the metrics, and as an event where it has drifted.

    Raises:
        NoProfile: The version was not trained by a release that keeps a profile, or not here.
        NoLog: There is no request log.
        VersionNotFound: There is no such version.
        UnusableTable: The truth cannot be used.
    """
    since = None if asked.since is None else moment(asked.since)
    version, saved_model = _version(deployment, asked.version)
    profile = Profile.read(saved_model)
    if profile is None:
        raise NoProfile(
            f"Version {version} of {deployment.model} keeps no profile of its training data: train it again with "
            "`hotswap train`, as a version that comes from elsewhere has none"
        )
    settings = deployment.settings
    directory = asked.directory or settings.request_log_directory
    logged = logged_rows(directory, deployment.model, _inputs(saved_model), version, since, profile=profile)
    compared = held_against(profile, logged, asked.limits, *_hashes(settings))
    enough = len(logged) >= asked.limits.min_rows
    schema = Schema.read(saved_model)
    report = DriftReport(
        deployment.model,
        version,
        None if since is None else since.isoformat(timespec="seconds"),
        len(logged),
        int(logged.answered.sum()),
        asked.limits,
        compared.columns if enough else (),
        compared.answers if enough else (),
        None if asked.truth is None else live_score(asked.truth, profile, logged, schema),
    )
    found = Found(report, markdown(report), _picture(report, profile, compared))
    _record(deployment, found)
    return found


def asked_of(parameters: DriftParameters) -> Asked:
    """
    What the parameters of the command or the flow ask for.

    Raises:
        InvalidParameter: They contradict each other, or are out of their bounds.
    """
    check_bounds(DriftParameters, parameters)
    directory, labels, on = (parameters.get(each) for each in ("log", "labels", "on"))
    if labels is None and (parameters.get("target") or on):
        raise InvalidParameter("--target and --on are about the truth: name its file by --labels FILE")
    truth = None
    if labels is not None:
        names = tuple(filter(None, map(str.strip, str(on or "").split(","))))
        truth = Truth(Path(str(labels)), parameters.get("target") or "", names)
    limits = Limits(psi=parameters["psi"], level=parameters["level"], min_rows=parameters["min_rows"])
    return Asked(
        parameters.get("version"),
        None if directory is None else Path(str(directory)),
        parameters.get("since"),
        truth,
        limits,
    )


def moment(text: str) -> datetime:
    """
    A time in ISO 8601, or so long ago: ``90min``, ``24h``, ``7d``.

    Raises:
        InvalidRequest: It is neither.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return parse_time(text)
    except InvalidRequest as exc:
        raise InvalidRequest(f"{exc}, or how long ago: 90min, 24h, 7d") from exc


def _version(deployment: Deployment, version: int | None) -> tuple[int, Path]:
    number = deployment.champion if version is None else version
    if number is None:
        raise VersionNotFound(f"{deployment.model} has no version yet: `hotswap train` makes one")
    deployment.check_published(number)
    return number, deployment.repository.path(deployment.model, number)


def _inputs(saved_model: Path) -> list[str]:
    from flows.training.inspection import inspect
    from flows.training.predictor import SIGNATURE

    return list(inspect(saved_model).signatures[SIGNATURE].inputs)


def _hashes(settings: Settings) -> tuple[frozenset[str], bytes | None]:
    """The columns of which the log has hashes, and their key where this user may read it."""
    names = frozenset(filter(None, map(str.strip, settings.request_log_hash.split(","))))
    if not names or settings.request_log_key_file is None:
        return names, None
    try:
        return names, read_key(settings.request_log_key_file)
    except OSError as exc:
        log.warning("hashed columns are not compared, as their key cannot be read: %s", exc)
        return names, None


def _picture(report: DriftReport, profile: Profile, compared: Comparison) -> bytes:
    by_change = sorted(report.all_columns, key=lambda each: (not each.drifted, -(each.psi or 0.0)))
    profiles = {each.name: each for each in (*profile.columns, *profile.answers)}
    figure = drift_figure([each.name for each in by_change], profiles, compared.values)
    return b"" if figure is None else as_png(figure)


def _record(deployment: Deployment, found: Found) -> None:
    report, settings = found.report, deployment.settings
    run = deployment.registry.start_run(
        report.model, f"drift of version {report.version}", {"version": report.version, "since": report.since}, {}
    )
    run.log_metrics(report.metrics)
    run.log_page("drift.md", found.page)
    run.log_page("drift.json", json.dumps(report.data, indent=1))
    if found.picture:
        run.log_picture("drift", found.picture)
    run.tag({"drift": report.verdict.value, "drift_reason": report.reason[:500]})
    run.end("FINISHED")
    keep_fact(settings.home, report, run.id)
    if report.verdict is Verdict.DRIFTED:
        facts = {"columns": list(report.drifted), "rows": report.rows, "run_id": run.id}
        tell(settings, Event(Kind.DRIFTED, report.model, report.version, report.reason, facts))
