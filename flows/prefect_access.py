"""
Can Prefect be used, and what does it mean when it cannot?

Prefect's own client is asked, so that address, key and certificates count as they do for Prefect.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flows.user_code import described
from serving.errors import HotswapError
from serving.redaction import redacted

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_REFUSED = (401, 403)


class PrefectUnavailable(HotswapError):
    """The Prefect server cannot be used."""


def client() -> SyncPrefectClient:
    """A client of the API that Prefect's settings name; a context manager."""
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def check() -> None:
    """
    Ask the server something that only Prefect answers, to whom it knows.

    Raises:
        PrefectUnavailable: It does not answer, or not to us.
    """
    try:
        with client() as asked:
            asked.api_version()
    except Exception as exc:
        raise PrefectUnavailable(explain(exc)) from exc


def is_usable() -> bool:
    """Would `check` pass?"""
    try:
        check()
    except PrefectUnavailable:
        return False
    return True


def explain(exc: BaseException) -> str:
    """The sentence for an error that came out of Prefect or its HTTP client."""
    where = f"Prefect at {redacted(os.environ.get('PREFECT_API_URL', 'its configured address'))}"
    status = getattr(getattr(exc, "response", None), "status_code", None)
    if status in _REFUSED:
        return (
            f"{where} does not accept the credentials, status {status}: "
            "set PREFECT_API_AUTH_STRING, or PREFECT_API_KEY for Prefect Cloud"
        )
    if status in (404, 405, 422):
        return (
            f"{where} does not know this request, status {status}: see that PREFECT_API_URL ends in /api and that "
            f"the server's release is not older than the client's, {_release()}"
        )
    if status is not None:
        return f"{where} failed, status {status}: see its log"
    if any(word in type(exc).__name__ for word in ("Connect", "Timeout", "Protocol", "ReadError", "WriteError")):
        return f"{where} does not answer ({type(exc).__name__}): start it with `hotswap up`, or unset PREFECT_API_URL"
    return f"{where} cannot be used ({redacted(described(exc))}): check the variables that begin with PREFECT_"


def _release() -> str:
    from importlib.metadata import version

    return version("prefect")
