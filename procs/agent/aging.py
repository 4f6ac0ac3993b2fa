"""What waits in a queue for too long, so that nothing stands there for seconds: a path that is slow, or cut for a
while, costs packets and not time, as in any good network. Pure.

A short standstill (of the path, or of this machine) costs nothing. Where the queue has not become short again for a
while, more is sent than the path takes: then it is kept short (RFC 8289 has the thought).
"""

from __future__ import annotations

from collections import deque

MOST_S = 1.0  # nothing waits for longer
SHORT_S, FOR_S = 0.05, 0.3  # a queue is to be short; for so long it may be longer


class Aging:
    """Messages of one queue, first in, first out. Times are seconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, bytes, int]] = deque()
        self._size = 0
        self._long_since: float | None = None

    def add(self, message: bytes, count: int, now: float) -> None:
        """One with so many packets in it is put there."""
        self._waiting.append((now, message, count))
        self._size += len(message)

    def stale(self, left: int, now: float) -> list[tuple[bytes, int]]:
        """So many bytes are still there: what is to be taken out, which is known here no more."""
        while self._waiting and self._size > left:
            self._take()
        oldest_s = now - self._waiting[0][0] if self._waiting else 0.0
        if oldest_s < SHORT_S / 2:
            self._long_since = None
        elif oldest_s > SHORT_S and self._long_since is None:
            self._long_since = now
        is_long = self._long_since is not None and now - self._long_since > FOR_S
        most_s = SHORT_S if is_long else MOST_S
        found = []
        while self._waiting and now - self._waiting[0][0] > most_s:
            found.append(self._take())
        return found

    def _take(self) -> tuple[bytes, int]:
        _, message, count = self._waiting.popleft()
        self._size -= len(message)
        return message, count
