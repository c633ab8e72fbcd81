"""
Refuses to let strangers in by mistake.

What listens on an address that others reach wants a token or a login: who may reload the model server, or move an alias
on MLflow's page, decides what is live.
"""

from __future__ import annotations

from collections.abc import Sequence

from clients.proxies import is_reachable_by_others
from flows.settings import InvalidSettings, Settings

_STEP = "or HOTSWAP_ALLOW_ANONYMOUS=true to do so all the same"


def check_server(settings: Settings, host: str, has_token: bool) -> None:
    """
    Raises:
        InvalidSettings: A model server on `host` would answer everybody.
    """
    if is_reachable_by_others(host) and not has_token and not settings.allow_anonymous:
        raise InvalidSettings(
            f"On {host} everybody who reaches this machine could use and reload the model server: "
            f"set HOTSWAP_TOKEN_FILE, {_STEP}"
        )


def check_flags(settings: Settings, flags: Sequence[str]) -> None:
    """The same for flags that are added to those of the settings; the last one counts."""
    given = {name: value for name, _, value in (flag.removeprefix("--").partition("=") for flag in flags)}
    check_server(settings, given.get("host", settings.host), bool(given.get("token_file", settings.token_file)))


def check_pages(settings: Settings) -> None:
    """
    Raises:
        InvalidSettings: MLflow, Prefect and the operator would answer everybody.
    """
    if is_reachable_by_others(settings.host) and settings.login is None and not settings.allow_anonymous:
        raise InvalidSettings(
            f"On {settings.host} everybody who reaches this machine could move live traffic on the pages of MLflow and "
            f"Prefect: set HOTSWAP_UI_USER and HOTSWAP_UI_PASSWORD_FILE, {_STEP}"
        )
