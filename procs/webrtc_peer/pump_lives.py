"""Whether tun_pump is there to take packets, as a session sees it: it says so each second, in each of its lives. Pure.

A peer can't know it. Where the session goes by a way of its own, it would believe that its packets arrive.
"""

from __future__ import annotations

from collections import deque

SILENT_S = 3.0
MANY, WITHIN_S, LATELY_S = 4, 120.0, 10.0  # lives, of which the last is younger than that


class PumpLives:
    """Times are seconds of CLOCK_MONOTONIC."""

    def __init__(self, now: float) -> None:
        self._heard_at, self._pid = now, 0
        self._begun: deque[float] = deque(maxlen=MANY)

    def heard(self, pid: int, now: float) -> None:
        """It has said that it is there."""
        self._heard_at = now
        if pid != self._pid:
            self._pid = pid
            self._begun.append(now)

    def why_not(self, now: float) -> str:
        """Why no packets pass there; "" while they do."""
        if now - self._heard_at > SILENT_S:
            return f"no tun_pump for {now - self._heard_at:.0f} s"
        if len(self._begun) == MANY and now - self._begun[0] < WITHIN_S and now - self._begun[-1] < LATELY_S:
            return f"tun_pump was started {MANY} times within {now - self._begun[0]:.0f} s"
        return ""
