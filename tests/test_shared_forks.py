"""Workers of pytest-xdist, and what they start, are forks of one process."""

from __future__ import annotations

import os
import subprocess
import sys

import execnet

from tests import shared_forks
from tests.docs.pages import PROJECT
from tests.forked_workers import forked_workers
from tests.processes import forked

OF_A_WORKER = """
import os
from tests import shared_forks
from tests.processes import forked
from tests.test_shared_forks import tell_parent
shared_forks.join()
print(forked(os.environ, tell_parent).stdout)
"""


def tell_parent() -> None:
    print(os.getppid())


def test_another_process_forks_from_the_one_that_is_shared() -> None:
    """What it starts has the same parent as what this process starts."""
    shared_forks.share()
    done = subprocess.run([sys.executable, "-c", OF_A_WORKER], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(forked(os.environ, tell_parent).stdout)


def test_a_worker_of_xdist_has_imported_everything() -> None:
    """It is forked from the same process, with the environment of who starts it."""
    with forked_workers() as spec:
        worker = execnet.makegateway(spec)
        asked = worker.remote_exec("import os, sys; channel.send(('tensorflow' in sys.modules, dict(os.environ)))")
        assert asked.receive(20) == (True, dict(os.environ))
        worker.exit()
