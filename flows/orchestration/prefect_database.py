"""
Lets Prefect's server on SQLite write what is asked of it at the same time, one after the other.

Prefect begins a transaction as a reader, and SQLite refuses its first write at once, whatever the time to wait, if
another has written meanwhile. With four runs at a time two in five requests that make a run fail so, and are repeated
seconds later. What such an error leaves for the garbage collector makes it worse: cleared while its connection waits
to write, it holds up the event loop, for which the one that writes waits, until SQLite gives up after a minute.
Who begins as a writer waits for its turn instead.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

log = logging.getLogger(__name__)


def write_in_turn() -> None:
    """
    Let the server that is about to start in this process begin each of its transactions on SQLite as a writer.

    Where a release of Prefect has none of what this takes, which it does not document, it does as it does without us.
    """
    try:
        from prefect.server.database.configurations import AioSqliteConfiguration
        from prefect.server.database.dependencies import set_database_config
        from prefect.server.utilities.database import get_dialect
        from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

        class Immediate(AioSqliteConfiguration):
            @asynccontextmanager
            async def begin_transaction(self, session: Any, with_for_update: bool = True) -> AsyncGenerator[Any]:
                async with super().begin_transaction(session, with_for_update=True) as transaction:
                    yield transaction

        address = PREFECT_API_DATABASE_CONNECTION_URL.value()
        if get_dialect(address).name == "sqlite":
            set_database_config(Immediate(connection_url=address))
    except (ImportError, AttributeError, TypeError) as exc:
        log.warning("Prefect's runs may wait for each other: %s: %s", type(exc).__name__, exc)
