"""
Sends events to the addresses of ``HOTSWAP_NOTIFY``: chat, mail, webhook, whatever Apprise knows.

An address holds tokens and passwords, so it is nowhere written: what waits for it is noted under a hash of it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import apprise

from flows.events.event import Event, Kind
from flows.settings import Settings
from serving.protocol.errors import HotswapError

logging.getLogger("apprise").addHandler(logging.NullHandler())  # a command says itself what was not delivered

_LOOKS = {
    Kind.PROMOTED: apprise.NotifyType.SUCCESS,
    Kind.REJECTED: apprise.NotifyType.WARNING,
    Kind.UNDONE: apprise.NotifyType.FAILURE,
    Kind.ROLLED_BACK: apprise.NotifyType.WARNING,
    Kind.DRIFTED: apprise.NotifyType.WARNING,
    Kind.DOWN: apprise.NotifyType.FAILURE,
}
_DOES = {
    Kind.PROMOTED: "is promoted",
    Kind.REJECTED: "is not promoted: a candidate was rejected",
    Kind.UNDONE: "is undone",
    Kind.ROLLED_BACK: "is live again: rolled back",
    Kind.RECONCILED: "is reconciled",
    Kind.DRIFTED: "gets other data than it was trained on",
    Kind.DOWN: "is down",
    Kind.APPROVAL_WANTED: "waits for approval",
}


class NotDelivered(HotswapError):
    """An address of HOTSWAP_NOTIFY did not take a notification."""


class Address:
    """One address."""

    def __init__(self, plugin: Any) -> None:
        self._plugin = plugin  # of Apprise, whose methods have no types
        self.name = hashlib.sha256(plugin.url().encode()).hexdigest()[:16]

    @property
    def shown(self) -> str:
        """Service and host, without tokens, paths and parameters."""
        return "/".join(str(self._plugin.url(privacy=True)).partition("?")[0].split("/")[:3])

    def send(self, id: str, event: Event) -> None:
        """Send one event."""
        kind = _LOOKS.get(event.kind, apprise.NotifyType.INFO)
        if not self._plugin.notify(body=body(event), title=title(event), notify_type=kind):
            raise NotDelivered(f"{self.shown} did not take the notification: see that it is right and can be reached")


def addresses(settings: Settings) -> list[Address]:
    """The addresses of the settings that Apprise understands."""
    known = apprise.Apprise()
    known.add(settings.notify.get_secret_value())
    return [Address(plugin) for plugin in known]


def are_understood(settings: Settings) -> bool:
    """Whether Apprise understands every address of the settings."""
    return bool(apprise.Apprise().add(settings.notify.get_secret_value()))


def title(event: Event) -> str:
    """The event in one line."""
    version = f" version {event.version}" if event.version is not None else ""
    return f"hotswap: {event.model}{version} {_DOES[event.kind]}"


def body(event: Event) -> str:
    """What else is known of it."""
    facts: Mapping[str, Any] = {"time": event.time, **event.facts}
    known = [f"{name.replace('_', ' ')}: {_shown(value)}" for name, value in facts.items() if value not in (None, [])]
    return "\n".join(filter(None, [event.why or "", *known]))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
