"""Which lost packets are worth sending again. Pure.

A viewer asks for a packet again and again until it comes. Where packets are lost since the path is full, each answer
fills it further: so nothing is sent again while the last copy may still be on its way, and all copies together stay
below SHARE of what is sent anyway. What is not sent again becomes a keyframe that the viewer asks for.
"""

from __future__ import annotations

from collections import OrderedDict

SHARE = 1 / 3
SAVED_MAX = 60_000  # bytes of that share that can be used at once, after a while without losses
ROUND_TRIP_S = 0.1  # while none is known
MAX_KNOWN = 1024


class Again:
    """Of one viewer."""

    def __init__(self) -> None:
        self._saved, self._counted = float(SAVED_MAX), 0
        self._sent_at: OrderedDict[int, float] = OrderedDict()

    def may(self, number: int, size: int, sent: int, round_trip_s: float | None, now: float) -> bool:
        """Whether to send this packet again, as is then taken for done. `sent`: bytes so far, copies not among them."""
        self._saved = min(SAVED_MAX, self._saved + SHARE * (sent - self._counted))
        self._counted = sent
        last_at = self._sent_at.get(number, float("-inf"))
        if size > self._saved or now - last_at < (round_trip_s or ROUND_TRIP_S):
            return False
        self._saved -= size
        self._sent_at[number] = now
        self._sent_at.move_to_end(number)
        if len(self._sent_at) > MAX_KNOWN:
            self._sent_at.popitem(last=False)
        return True
