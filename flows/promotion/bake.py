"""
The bake: a version that went live is watched for a while, and its promotion is undone if it is worse than before.

Its golden rows and those of the version before are asked in turn, and the servers' own counts of errors are compared,
so that the traffic that it now gets has a say.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from flows.endpoints.golden_rows import WrongAnswer
from flows.endpoints.live_server import LiveServer
from flows.promotion import rollback
from flows.promotion.attempt import attempt
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE, alias_of
from flows.promotion.undo import PromotionUndone, undo
from serving.protocol.errors import DeadlineExceeded, HotswapError
from serving.repository.stamp import GoldenRows

log = logging.getLogger(__name__)

_TURNS = 100
_MAX_TURN_SECONDS = 0.1
_MAX_FAILURES = 3
_MIN_TIMED, _MAX_TIMED = 30, 200
_SLOWDOWN = 2.0
_NOISE_MS = 25.0
_MIN_REQUESTS = 20
_MORE_ERRORS = 0.01


def bake(deployment: Deployment, version: int, previous: int | None, seconds: float, label: str = STABLE) -> None:
    """
    Watch a promoted version for `seconds`, and undo its promotion if it is worse than what was or is live.

    Args:
        deployment: Its lock is free meanwhile, so that it can be rolled back by hand.
        version: What is watched.
        previous: Where its label pointed before, and goes back to.
        seconds: For how long.
        label: The one that it got; one with another label than ``stable`` is compared with the stable version.

    Raises:
        PromotionUndone: It was worse; the message says how.
    """
    model = deployment.model
    beside = previous if label == STABLE else deployment.champion
    log.info("watching model=%s version=%d beside=%s seconds=%g", model, version, beside, seconds)
    reason = watch(deployment, version, beside, seconds)
    if not reason:
        log.info("version baked model=%s version=%d", model, version)
        return
    with deployment.lock():
        if deployment.labels.read().get(label) != version:
            log.warning("no longer live, so nothing is undone model=%s version=%d reason=%s", model, version, reason)
            return
        _take_out(deployment, version, previous, label, reason)
    raise PromotionUndone(f"Version {version} of {model!r} was taken out again: {reason}")


def _take_out(deployment: Deployment, version: int, previous: int | None, label: str, reason: str) -> None:
    """Undo the promotion of `version`; its label goes back to `previous`, if that is still published."""
    labels = {other: at for other, at in deployment.labels.read().items() if at != version}
    aliases = {}
    if previous in deployment.versions:
        labels[label] = aliases[alias_of(label)] = previous
        if label == STABLE:
            attempt("announce", lambda: rollback.announce(deployment, previous, version, [version]))
    undo(deployment, version, labels, aliases, reason)


def watch(deployment: Deployment, version: int, previous: int | None, seconds: float) -> str:
    """
    Ask `version` and `previous` in turn, and count what the servers count, for `seconds`.

    Returns:
        Why `version` must go, as soon as that is known; empty if there is no reason.
    """
    model = deployment.model
    with deployment.servers.running() as servers:
        if servers is None:
            log.warning("no server runs, so there is nothing to watch model=%s version=%d", model, version)
            return ""
        watched = {
            server: _Watched(
                server,
                model,
                _Version(version, deployment.stamp(version).golden),
                None if previous is None else _Version(previous, deployment.stamp(previous).golden),
            )
            for server in servers
        }
        pause = min(_MAX_TURN_SECONDS, seconds / _TURNS)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for reason in servers.each(lambda server: watched[server].turn()):
                if reason:
                    return reason
            time.sleep(pause)
    return ""


@dataclass
class _Version:
    """One version, and how fast it has answered."""

    number: int
    golden: GoldenRows | None
    milliseconds: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_TIMED))

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.milliseconds, 95))


class _Watched:
    """One server, and what it has shown so far."""

    def __init__(self, server: LiveServer, model: str, new: _Version, old: _Version | None) -> None:
        self._server = server
        self._model = model
        self._new = new
        self._old = old
        self._failures = 0
        self._before: dict[int, tuple[int, int]] | None = None

    def turn(self) -> str:
        """Ask once; return why the new version must go, or nothing."""
        try:
            self._time(self._new)
            self._failures = 0
        except (WrongAnswer, DeadlineExceeded) as exc:
            return f"while it was watched: {exc}"
        except HotswapError as exc:
            self._failures += 1
            if self._failures >= _MAX_FAILURES:
                return f"while it was watched, {self._failures} questions in a row failed at {self._server.name}: {exc}"
            return ""
        if self._old is None:
            return ""
        with suppress(HotswapError):
            self._time(self._old)
        return self._slower(self._old) or self._more_errors(self._old)

    def _time(self, version: _Version) -> None:
        if version.golden is not None:
            version.milliseconds.append(self._server.time_golden(self._model, version.number, version.golden))

    def _slower(self, old: _Version) -> str:
        if min(len(old.milliseconds), len(self._new.milliseconds)) < _MIN_TIMED:
            return ""
        new_ms, old_ms = self._new.p95_ms, old.p95_ms
        if new_ms <= max(_SLOWDOWN * old_ms, old_ms + _NOISE_MS):
            return ""
        return (
            f"while it was watched, 95 of 100 answers took {new_ms:.1f} ms at {self._server.name}, "
            f"those of version {old.number} {old_ms:.1f} ms"
        )

    def _more_errors(self, old: _Version) -> str:
        """Compare the server's own counts, of all clients' requests; TensorFlow Serving has none by version."""
        now = self._server.usage(self._model)
        if self._before is None:
            self._before = now
        requests, errors = now.get(self._new.number, (0, 0))
        old_requests, old_errors = self._before.get(old.number, (0, 0))
        share, old_share = errors / max(requests, 1), old_errors / max(old_requests, 1)
        if requests < _MIN_REQUESTS or share <= old_share + _MORE_ERRORS:
            return ""
        return (
            f"while it was watched, {share:.1%} of {requests} requests failed at {self._server.name}, "
            f"of version {old.number} it was {old_share:.1%}"
        )
