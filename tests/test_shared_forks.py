"""Workers of pytest-xdist, and what they start, are forks of one process."""

from __future__ import annotations

import os
import subprocess
import sys

from tests import shared_forks
from tests.docs.pages import PROJECT
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
