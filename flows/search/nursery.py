"""
The process that candidates are forked from: it has imported what they need, and has done nothing yet.

`processes` starts it as ``python -m flows.search.nursery FD``. For each byte that comes over the socket FD, with one
end of a connection, it forks a process that trains the candidate which the connection asks for. Whoever closes the
other end, or dies, ends that training.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from flows.machine.generated_code import remove_generated_code
from serving.protocol.errors import HotswapError


def main() -> None:
    """Serve until the socket is closed."""
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        import tensorflow  # noqa: F401

        import flows.search.candidate
        import flows.tables.making
        import flows.tables.model  # noqa: F401

        gc.freeze()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets those that have ended
        while descriptors := socket.recv_fds(asked, 1, 1)[1]:
            if os.fork() == 0:
                asked.close()
                _train(Connection(descriptors[0]))
            os.close(descriptors[0])


def _train(connection: Connection[Any, Any]) -> None:
    """Train one candidate, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        order = connection.recv()
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        connection.send(("done", _trained(order, connection)))
    except HotswapError as exc:
        connection.send(("failed", str(exc)))
    except BaseException as exc:
        connection.send(("failed", f"{type(exc).__name__}: {exc}"))
        raise
    finally:
        remove_generated_code()
        sys.stderr.flush()
        os._exit(0)


def _trained(order: Any, connection: Connection[Any, Any]) -> Any:
    import tensorflow as tf

    from flows.search.candidate import train_candidate

    tf.config.threading.set_intra_op_parallelism_threads(order.threads)

    def tell(epoch: int, metrics: Mapping[str, float]) -> None:
        connection.send((epoch, {name: float(value) for name, value in metrics.items()}))

    return train_candidate(order, tell)


def _end_with(connection: Connection[Any, Any]) -> None:
    try:
        connection.recv()
    except (EOFError, OSError):
        remove_generated_code()
        os._exit(1)


if __name__ == "__main__":
    main()
