"""
Serves the deployments: starts what Prefect has scheduled, cancels what it has cancelled, and ends what was killed.

Commands need none of this: they reach the process that waits by themselves (`flows.local.delegation`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from flows.local.delegation import code, socket_path
from flows.machine import handover
from flows.machine.handover import Handover
from flows.orchestration import deployments, open_runs
from flows.orchestration.prefect_access import PrefectUnavailable
from flows.orchestration.prefect_server import find_running_prefect
from flows.orchestration.work_pool import WorkPool
from flows.settings import Settings, prepare_home
from flows.worker import child, deploying
from flows.worker.children import Child, Children

log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_STOP_SECONDS = 20.0


class Worker:
    """One for each home."""

    def __init__(self, settings: Settings, stop_requested: threading.Event) -> None:
        self._settings = settings
        self._stop_requested = stop_requested
        self._trouble = ""
        """why Prefect could not be asked the last time"""

    def run(self) -> None:
        """Serve until a stop is requested."""
        prepare_home(self._settings)
        path = socket_path(self._settings.home)
        path.unlink(missing_ok=True)
        while not find_running_prefect(self._settings):
            if self._stop_requested.wait(_POLL_SECONDS):
                return
        open_runs.end_in_prefect(self._settings)
        with WorkPool(deployments.POOL) as pool:
            pool.end_gone()
            deploying.deploy(self._settings)
            with handover.listen(path) as listening:
                children = Children(listening, os.environ["PREFECT_API_URL"])
                try:
                    self._serve(pool, children)
                finally:
                    path.unlink(missing_ok=True)
                for each in children.end(_STOP_SECONDS):
                    self._end(pool, each)

    def _serve(self, pool: WorkPool, children: Children) -> None:
        log.info("the worker serves %s", os.environ["PREFECT_API_URL"])
        ask_at = 0.0
        while not self._stop_requested.is_set():
            children.keep_one_waiting()
            children.wait(min(_POLL_SECONDS, max(0.0, ask_at - time.monotonic())))
            for ended in children.ended():
                if ended.process.exitcode:
                    self._end(pool, ended)
            if time.monotonic() >= ask_at:
                self._ask(pool, children)
                ask_at = time.monotonic() + _POLL_SECONDS

    @staticmethod
    def _end(pool: WorkPool, child: Child) -> None:
        """See that Prefect does not show as running what has ended."""
        if child.flow_run:
            with suppress(PrefectUnavailable):
                pool.end(child.flow_run)

    def _ask(self, pool: WorkPool, children: Children) -> None:
        try:
            pool.beat()
            cancelled = pool.cancelled()
            for each in children:
                if each.flow_run in cancelled:
                    each.interrupt()
            for flow_run in pool.claim_due():
                threading.Thread(target=self._start, args=(flow_run, pool), daemon=True).start()
        except PrefectUnavailable as exc:
            if str(exc) != self._trouble:
                log.warning("Prefect not asked: %s", exc)
            self._trouble = str(exc)
        else:
            self._trouble = ""

    def _start(self, flow_run: str, pool: WorkPool) -> None:
        """Hand a run over as a command of this process, and wait for its end."""
        command = Handover.of_this_process([child.SCHEDULED, flow_run], code())
        command = replace(command, directory=str(deployments.project(self._settings)))
        try:
            asking = handover.connect(socket_path(self._settings.home))
            if asking is None:
                raise handover.Refused("the worker ends")
            with asking, Path(os.devnull).open() as nothing:
                handover.hand_over(asking, command, (nothing.fileno(), 1, 2))
                handover.exit_code(asking)
        except (handover.Refused, handover.CommandGone) as exc:
            log.warning("flow run failed flow_run=%s reason=%s", flow_run, exc)
            with suppress(PrefectUnavailable):
                pool.end(flow_run)
