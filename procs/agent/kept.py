"""The last packets of a time without a connection, for when there is one again. Pure.

TCP's are as good late as in time: a connection inside goes on at once then, and not when it next thinks of sending
something again, for which it waits as long as it was cut off already. All others are dropped soon, as a network does: a
ping that is answered late tells wrongly how the way is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

KEPT = 32  # of each kind
TCP_S, OTHER_S = 120.0, 1.0
_TCP = 6


class Kept:
    """Times are seconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._tcp: deque[tuple[float, bytes]] = deque(maxlen=KEPT)
        self._other: deque[tuple[float, bytes]] = deque(maxlen=KEPT)

    def add(self, packets: Iterable[bytes], now: float) -> None:
        """Keep these, in the place of the oldest."""
        for packet in packets:
            (self._tcp if _is_tcp(packet) else self._other).append((now, packet))

    def taken(self, now: float) -> list[bytes]:
        """Those that are worth it still, in the order in which they came. None is kept any more."""
        its = [each for each in self._tcp if now - each[0] < TCP_S]
        its += [each for each in self._other if now - each[0] < OTHER_S]
        self._tcp.clear()
        self._other.clear()
        return [packet for _, packet in sorted(its, key=lambda each: each[0])]


def _is_tcp(packet: bytes) -> bool:
    at = 9 if packet[:1] < b"\x60" else 6
    return packet[at : at + 1] == bytes([_TCP])
