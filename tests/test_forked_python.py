"""What the tests start in place of a Python is one, as far as they can tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import execnet
import psutil
import pytest

from tests.forked_python import forked_python
from tests.waiting import until

WAITING = """
import os, signal, sys
from pathlib import Path

def end(number, frame):
    sys.exit(7)

signal.signal(signal.SIGTERM, end)
Path("pid").write_text(str(os.getpid()))
while True:
    signal.pause()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The program, also in the long form."""
    with forked_python(tmp_path_factory.mktemp("python")) as found:
        yield str(found)


def test_it_has_arguments_environment_directory_and_streams(program: str, tmp_path: Path) -> None:
    """And what it starts by `sys.executable` is forked too; whatever else it is to do, a real one does."""
    (tmp_path / "told.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.environ['NAME'], os.getcwd(), sys.executable, sys.stdin.read())\n"
        "print('wrong', file=sys.stderr)\nsys.exit(5)\n"
    )
    environment = {**os.environ, "NAME": "é=1"}
    done = subprocess.run(
        [program, "-m", "told", "a", "b"], cwd=tmp_path, env=environment, input="in", capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (5, "wrong\n")
    assert done.stdout == f"['a', 'b'] é=1 {tmp_path} {program} in\n"
    real = subprocess.run([program, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
    assert real.stdout == f"{sys.executable}\n"


def test_a_worker_of_xdist_has_imported_everything(program: str) -> None:
    """With the environment of who starts it."""
    worker = execnet.makegateway(f"popen//python={program}")
    asked = worker.remote_exec("import os, sys; channel.send(('tensorflow' in sys.modules, dict(os.environ)))")
    assert asked.receive(20) == (True, dict(os.environ))
    worker.exit()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 7), (signal.SIGKILL, -9)])
def test_it_ends_as_it_is_told_to(program: str, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """By the signals that are sent to the program; the real process ends even when that is killed."""
    (tmp_path / "waiting.py").write_text(WAITING)
    process = subprocess.Popen([program, "-m", "waiting"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    process.send_signal(number)
    assert process.wait(20) == code
    until(lambda: not psutil.pid_exists(pid))
