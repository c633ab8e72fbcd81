"""What was noted and is not written yet: bounded in number and bytes, added to by one thread and taken by another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from serving.protocol.tensors import Array
from serving.request_log.predict_groups import PredictGroup, can_be_grouped
from serving.request_log.records import Exchange, PredictExchange
from serving.runtime.call import Call

MAX_WAITING = 2**15
BATCH = 2048
"""so many are taken at once, and one group is no larger"""

_Key = tuple[Any, ...]
"""a call, the second, and the shapes of inputs and outputs"""
_shape_of = attrgetter("shape")


class Waiting:
    """
    Exchanges from when they are noted until they are written.

    Args:
        max_bytes: About how much memory they may take together.
        groups: Whether predicts that are alike are kept as one.
    """

    def __init__(self, max_bytes: int, groups: bool) -> None:
        self._max_bytes = max_bytes
        self._can_group = groups
        self._count = 0
        self._bytes = 0
        self._exchanges: deque[Exchange] = deque()
        self._groups: dict[_Key, PredictGroup] = {}
        """those that can still grow"""
        self._lock = threading.Lock()

    def add(self, exchange: Exchange) -> bool:
        """Whether there was room for one more exchange."""
        with self._lock:
            return self._add(exchange)

    def add_predict(self, call: Call, arrays: list[Array], outputs: list[Array]) -> bool:
        """The same for a predict; only its values are kept where they are numbers."""
        both = arrays + outputs
        key = (call, int(time.time()), *map(_shape_of, both))
        with self._lock:
            group = self._groups.get(key)
            if group is None or group.count == BATCH:
                if not (self._can_group and can_be_grouped(call, both)):
                    return self._add(PredictExchange(call, arrays, outputs))
                group = PredictGroup(call, both, key[1])
            if not self._has_room(group.exchange_bytes):
                return False
            if not group.count:
                self._groups[key] = group
                self._exchanges.append(group)
            group.add(both)
        return True

    def take(self) -> list[Exchange]:
        """The oldest; until they are `released` they need their room."""
        taken: list[Exchange] = []
        count = 0
        with self._lock:
            self._groups.clear()
            while self._exchanges and count < BATCH:
                taken.append(self._exchanges.popleft())
                count += taken[-1].count
        return taken

    def released(self, taken: Sequence[Exchange]) -> None:
        """Give the room of what was taken to others."""
        with self._lock:
            self._count -= sum([each.count for each in taken])
            self._bytes -= sum([each.size_bytes for each in taken])

    def _add(self, exchange: Exchange) -> bool:
        has_room = self._has_room(exchange.size_bytes)
        if has_room:
            self._exchanges.append(exchange)
        return has_room

    def _has_room(self, size: int) -> bool:
        """Whether there is room for one of this size, which is its own then."""
        if self._count >= MAX_WAITING or self._bytes + size > self._max_bytes:
            return False
        self._count += 1
        self._bytes += size
        return True
