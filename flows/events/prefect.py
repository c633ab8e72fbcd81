"""Hands events to Prefect: ``hotswap.<kind>`` happened to ``hotswap.model.<model>`` or ``hotswap.service.<name>``."""

from __future__ import annotations

from flows.events.event import Event, Kind
from flows.orchestration.prefect_events import record_event
from flows.settings import Settings


class Prefect:
    """The Prefect server that is configured, or that of `hotswap up`."""

    name = "prefect"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def send(self, id: str, event: Event) -> None:
        """Record one event."""
        what = "service" if event.kind is Kind.DOWN else "model"
        resource = {
            "prefect.resource.id": f"hotswap.{what}.{event.model.replace(' ', '-')}",
            "prefect.resource.name": event.model,
            **({"hotswap.version": str(event.version)} if event.version is not None else {}),
        }
        payload = {"version": event.version, "why": event.why, **event.facts}
        record_event(self._settings, id, f"hotswap.{event.kind}", resource, event.time, payload)
