"""Makes the deployments of ``prefect.yaml`` known to Prefect, by its own command, in a process that has it imported."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import sys
from pathlib import Path

from flows.orchestration import deployments, prefect_access
from flows.settings import Settings
from serving.repository.files import write_atomically

log = logging.getLogger(__name__)


def deploy(settings: Settings) -> None:
    """
    Make the deployments known; a schedule that was paused or resumed there stays so until the file is changed.

    A file that cannot be used does not keep the others from being served; the log says why.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["flows.worker.preloaded"])
    for file in deployments.files(settings):
        arguments = (dict(os.environ), deployments.project(settings), settings.home.absolute(), file)
        process = forks.Process(target=_deploy, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            log.error("%s cannot be deployed: the lines above say why; correct it and start `hotswap up` again", file)


def _deploy(environment: dict[str, str], directory: Path, home: Path, file: Path) -> None:
    os.environ.update(environment)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    prefect_access.read_settings()
    known, content = home / "deployed.json", hashlib.sha256(file.read_bytes()).hexdigest()
    last = json.loads(known.read_text("utf-8")) if known.exists() else {}
    before = deployments.schedules() if last.get(str(file)) == content else {}
    from prefect.cli import app

    sys.argv = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    try:
        app()
    except SystemExit as exc:
        if exc.code:
            raise
    deployments.toggle(before)
    write_atomically(known, json.dumps({**last, str(file): content}))
