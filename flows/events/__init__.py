"""
What has happened to a model, for people and programs that want to be told.

`tell` puts an event into a queue on disk and comes back at once; `delivery` sends what waits there to Prefect, and to
the addresses of ``HOTSWAP_NOTIFY``.
"""

from flows.events.event import Event, Kind
from flows.events.outbox import tell

__all__ = ["Event", "Kind", "tell"]
