"""
The command line `hotswap`: how a command begins and ends, and the exit code of each.

Data go to standard output, logs and errors to standard error. Everything heavy is imported by the command that needs
it, so that ``--help`` and ``predict`` answer at once; what the worker of `hotswap up` does imports nothing here.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from flows.local.delegation import delegated
from flows.local.interrupts import defer_sigint
from flows.machine.handover import CommandGone

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_GONE = (
    "The process that did this was killed; nothing of what was live has changed, and `hotswap reconcile` finishes what "
    "it had begun"
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """
    Run one command and exit.

    0 done, 1 error, 2 usage, 3 not passed by the gate, 4 sandbox rejected, 5 not verified and undone, 6 up already,
    7 not approved, 8 drifted, 9 too little data to tell.
    """
    with defer_sigint():
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        code = _delegated(arguments)
        if code is None:
            code = run(arguments)
        _deliver_events()
    # Else the interpreter would look through all of TensorFlow, Prefect and MLflow for garbage on its way out: 2 s.
    gc.freeze()
    sys.exit(code)


def _deliver_events() -> None:
    """Deliver what this command has told, once its result is printed; one that has told nothing imports nothing."""
    if "flows.events.outbox" not in sys.modules:
        return
    from flows.commands.edges import plain_settings
    from flows.events.delivery import flush

    try:
        flush(plain_settings())
    except Exception as exc:
        logging.getLogger(__name__).warning("events not delivered: %s", exc)


def _delegated(arguments: Sequence[str]) -> int | None:
    """The exit code of a command that the worker has carried out."""
    try:
        return delegated(arguments)
    except CommandGone:
        from flows.commands import failures

        failures.complain(_GONE)
        return failures.EXIT_ERROR


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] == "help":
        arguments = [*arguments[1:2], "--help"]
    from serving.protocol.redaction import redact_logs, redacted_output

    redact_logs()
    with redacted_output():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    import typer

    from flows.commands import failures
    from flows.commands.application import app

    try:
        code = app(args=list(arguments), prog_name="hotswap", standalone_mode=False)
    except typer.TyperException as exc:
        context = getattr(exc, "ctx", None)
        failures.complain_of_usage(exc.format_message(), context.command_path if context else "hotswap")
        return EXIT_USAGE
    except Exception as exc:
        return failures.report(exc)
    if code == EXIT_INTERRUPTED:
        failures.complain("interrupted; `hotswap status` shows what is live")
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
