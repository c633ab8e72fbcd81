"""
Runs a process that ends with the one that started it, and keeps its output.

Each runs in a session of its own, so that Ctrl-C in a terminal reaches only the process that started it, and with a
tether: a shell in its group that ends the group when its standard input closes, which happens even when the other
process is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from serving.protocol.redaction import redacted

MAX_LOG_BYTES = 10 << 20
STOP_SECONDS = 35.0  # the model server lets requests in flight end, for at most 30 s
_LAST_LINES = 15
_MAX_LINE_BYTES = 1 << 20
_DRAIN_SECONDS = 5.0

# A stopped process has to continue first: else SIGTERM might reach a thread that does not handle it. One that hangs
# only obeys SIGKILL. A zombie has ended, although its exit code may never be collected.
_TETHERED = f"""
has_ended() {{
    kill -0 $$ || return 0
    read -r state </proc/$$/stat || return 1
    case $state in *') Z '*) return 0 ;; esac
    return 1
}}
exec 3<&0
(
    trap '' TERM
    read _ <&3
    kill -CONT 0
    kill -TERM 0
    seconds=0
    until has_ended 2>/dev/null || [ "$seconds" -ge {STOP_SECONDS:.0f} ]; do sleep 1; seconds=$((seconds + 1)); done
    kill -KILL 0
) &
exec "$@" </dev/null 3<&-
"""


class Process:
    """A command that runs in a session of its own, with all that it starts; it ends when this process does."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        logs: Path,
        environment: Mapping[str, str] | None = None,
        output: int | None = None,
        redact: bool = False,
    ) -> None:
        """
        Start it.

        Args:
            name: Its name, and that of its log.
            command: The program and its arguments.
            logs: The directory of its log.
            environment: Variables in addition to the environment of this process.
            output: Where its standard output goes when that is for the user; else it goes to its log.
            redact: Whether its log goes through this process, which removes secrets; it waits while that is stopped.
        """
        self.name = name
        self.log_path = logs / f"{name.replace(' ', '-')}.log"
        self._copying: threading.Thread | None = None
        with self._open_log() as log:
            self._log_begins = log.seek(0, os.SEEK_END) if log.seekable() else 0
            written = self._redacted_log() if redact else os.dup(log.fileno())
            try:
                self._leader = subprocess.Popen(
                    ["/bin/sh", "-c", _TETHERED, "sh", *command],
                    stdin=subprocess.PIPE,
                    stdout=written if output is None else output,
                    stderr=written,
                    start_new_session=True,
                    env={**os.environ, **(environment or {})},
                )
            finally:
                os.close(written)

    @property
    def pid(self) -> int:
        return self._leader.pid

    @property
    def ended(self) -> bool:
        return self._leader.poll() is not None

    @property
    def how_it_ended(self) -> str:
        """Such as "was ended by SIGKILL" or "ended with exit code 1"."""
        code = self._leader.poll()
        if code is None:
            return "runs"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"

    @property
    def last_lines(self) -> str:
        """The last lines of its log, without those that an earlier process of the same name wrote."""
        try:
            with self.log_path.open(encoding="utf-8", errors="replace") as log:
                if self._log_begins <= self.log_path.stat().st_size:
                    log.seek(self._log_begins)
                return "".join(deque(log, maxlen=_LAST_LINES)).rstrip()
        except OSError:
            return ""

    def failure_message(self, how: str) -> str:
        """A sentence about how it failed, such as "did not start", and the last lines of its log."""
        return f"The {self.name} {how}, so everything was stopped; its log is {self.log_path}:\n{self.last_lines}"

    def limit_log(self) -> None:
        """Start the log anew when it is too large; one older part is kept."""
        with suppress(OSError):
            if self.log_path.stat().st_size < MAX_LOG_BYTES:
                return
            # It is written to meanwhile, always at its end, so it has to stay the same file.
            with suppress(OSError):
                shutil.copyfile(self.log_path, self.log_path.with_suffix(".log.1"))
            os.truncate(self.log_path, 0)
            self._log_begins = 0

    def terminate(self, alone: bool = False) -> None:
        """Ask the whole session to end, or the process `alone`, which then ends what it has started."""
        self._signal(signal.SIGCONT)
        if alone:
            self._leader.terminate()
        else:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole session at once."""
        self._signal(signal.SIGKILL)

    def end(self, deadline: float) -> None:
        """Wait until `deadline` of the monotonic clock, then kill what is left of the session."""
        with suppress(subprocess.TimeoutExpired):
            self._leader.wait(max(0.0, deadline - time.monotonic()))
        self.kill()
        self._leader.communicate()
        if self._copying is not None:
            self._copying.join(_DRAIN_SECONDS)

    def _redacted_log(self) -> int:
        """A pipe whose lines are written to the log without their secrets."""
        read, written = os.pipe()
        self._copying = threading.Thread(target=self._copy, args=(read,), name=f"log of {self.name}", daemon=True)
        self._copying.start()
        return written

    def _copy(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb") as lines, self._open_log() as log:
            while line := lines.readline(_MAX_LINE_BYTES):
                with suppress(OSError):  # a full disk: what is not read would stop the process
                    log.write(redacted(line.decode("utf-8", "replace")).encode())

    def _open_log(self) -> IO[bytes]:
        """The log, or the null device where it cannot be written: the process matters more."""
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            return self.log_path.open("ab", buffering=0)
        except OSError:
            return Path(os.devnull).open("ab", buffering=0)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(self._leader.pid, number)


def stop(processes: Sequence[Process]) -> None:
    """Ask all of them to end, and kill those that have not ended in time."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        process.end(deadline)


def this_process() -> str:
    """Host and pid, as Prefect's page names the process of a run."""
    return f"{socket.gethostname()}:{os.getpid()}"
