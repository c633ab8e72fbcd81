"""Does a version that went live stay as good as the one before, under the traffic that it now gets?"""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from flows.endpoints.golden_rows import WrongAnswer
from flows.endpoints.live_server import LiveServer
from flows.endpoints.servers import running_server
from flows.settings import Settings
from serving.protocol.errors import DeadlineExceeded, HotswapError
from serving.repository.store import Repository

log = logging.getLogger(__name__)

_TURNS = 100
_MAX_TURN_SECONDS = 0.1
_MAX_FAILURES = 3
_MIN_TIMED, _MAX_TIMED = 30, 200
_SLOWDOWN = 2.0
_NOISE_MS = 25.0
_MIN_REQUESTS = 20
_MORE_ERRORS = 0.01


def watch(settings: Settings, model: str, version: int, previous: int | None, seconds: float) -> str:
    """
    Ask `version` and `previous` in turn, and count what the servers count, for `seconds`.

    Returns:
        Why `version` must go, as soon as that is known; empty when there is no reason.
    """
    repository = Repository(settings.models_repo)
    with running_server(settings) as servers:
        if servers is None:
            log.warning("no server runs, so there is nothing to watch model=%s version=%d", model, version)
            return ""
        watched = {
            server: _Watched(
                server,
                model,
                _Version(version, repository.stamp(model, version)),
                None if previous is None else _Version(previous, repository.stamp(model, previous)),
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
    """What is known of one version."""

    number: int
    stamp: dict[str, object]
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
        """Ask once; why the new version must go, or nothing."""
        try:
            self._new.milliseconds.append(self._server.time_golden(self._model, self._new.number, self._new.stamp))
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
            self._old.milliseconds.append(self._server.time_golden(self._model, self._old.number, self._old.stamp))
        return self._slower(self._old) or self._more_errors(self._old)

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
        """From the server's own counts, which are of everybody's requests; TensorFlow Serving has none by version."""
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
