"""Frames that wait to be sent: what is short goes first, answers with bodies after it. Bounded. Pure."""

from __future__ import annotations

from collections import deque

MAX_SHORT = 1000
MAX_BULK_BYTES = 16 * 1024 * 1024
KEPT_S = 30.0  # nobody waits longer for an answer


class Outbox:
    """Two queues. The one with answers outlives a connection, so that an answer that was made meanwhile still goes."""

    def __init__(self) -> None:
        self._short: deque[str] = deque()
        self._bulk: deque[tuple[str, float]] = deque()
        self._bulk_bytes = 0

    def new_connection(self) -> None:
        """What was meant for the one before is worth nothing to the next."""
        self._short.clear()

    def put(self, text: str) -> bool:
        """A short frame. False when the hub has left so many unread that it is to be given up."""
        self._short.append(text)
        return len(self._short) <= MAX_SHORT

    def put_bulk(self, text: str, now: float) -> bool:
        """An answer. False, and not taken, when too much waits already."""
        if self._bulk_bytes + len(text) > MAX_BULK_BYTES:
            return False
        self._bulk.append((text, now + KEPT_S))
        self._bulk_bytes += len(text)
        return True

    def first(self, now: float, *, bulk: bool = True) -> str | None:
        """The frame to be sent next, of the short ones or of all, which stays until `sent`."""
        while self._bulk and self._bulk[0][1] < now:
            self._pop_bulk()
        if self._short:
            return self._short[0]
        return self._bulk[0][0] if self._bulk and bulk else None

    def sent(self, text: str) -> None:
        """It is on its way: the one that `first` gave."""
        if self._short and self._short[0] is text:
            self._short.popleft()
        elif self._bulk and self._bulk[0][0] is text:
            self._pop_bulk()

    def _pop_bulk(self) -> None:
        self._bulk_bytes -= len(self._bulk.popleft()[0])
