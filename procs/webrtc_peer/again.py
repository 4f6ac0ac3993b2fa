"""Which lost packets are worth sending again. Pure.

A viewer asks for a packet again and again until it comes. Where packets are lost since the path is full, each answer
fills it further: so nothing is sent again while the last copy may still be on its way, and all copies together stay
below SHARE of what is sent anyway. For what is more than that there is room later, and some viewers ask only once: it
is owed for a while. What is not sent again by then becomes a keyframe that the viewer asks for.
"""

from __future__ import annotations

from collections import OrderedDict

SHARE = 1 / 3
SAVED_MAX = 60_000  # bytes of that share that can be used at once, after a while without losses
ROUND_TRIP_S = 0.1  # while none is known
MAX_KNOWN = 1024
OWED_S = 3.0


class Again:
    """Of one viewer."""

    def __init__(self) -> None:
        self._saved, self._counted = float(SAVED_MAX), 0
        self._sent_at: OrderedDict[int, float] = OrderedDict()
        self._owed: dict[int, float] = {}  # packets, and since when

    def is_on_its_way(self, number: int, round_trip_s: float | None, now: float) -> bool:
        """Whether the last copy may still arrive."""
        return now - self._sent_at.get(number, float("-inf")) < (round_trip_s or ROUND_TRIP_S)

    def may(self, number: int, size: int, sent: int, now: float) -> bool:
        """Whether to send this packet again, as is then taken for done; if not, it is owed. `sent`: bytes so far,
        copies not among them."""
        self._saved = min(SAVED_MAX, self._saved + SHARE * (sent - self._counted))
        self._counted = sent
        if size > self._saved:
            if len(self._owed) < MAX_KNOWN:
                self._owed.setdefault(number, now)
            return False
        self._saved -= size
        self._owed.pop(number, None)
        self._sent_at[number] = now
        self._sent_at.move_to_end(number)
        if len(self._sent_at) > MAX_KNOWN:
            self._sent_at.popitem(last=False)
        return True

    def owed(self, now: float) -> int | None:
        """The number of the packet that has been owed longest, if it is still worth sending."""
        while self._owed:
            number, since = next(iter(self._owed.items()))
            if now - since < OWED_S:
                return number
            del self._owed[number]
        return None

    def forgive(self, number: int) -> None:
        """It is not known any more."""
        self._owed.pop(number, None)
