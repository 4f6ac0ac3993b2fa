"""Times of a command's stream as times of this machine, so that they go on when a writer is started anew. Pure."""

from __future__ import annotations

from procs.media.tspackets import CLOCK_HZ, WRAP, signed, ticks

RUNAWAY_TICKS = CLOCK_HZ  # 1 s


class Clock:
    """Maps a stream's decoding times onto CLOCK_MONOTONIC: what they say between pictures is kept, where they begin is
    replaced by when the first one came.

    A stream whose clock runs away from ours by over `runaway` ticks (it jumped, or drifts) is anchored again. Times
    never go back.
    """

    __slots__ = ("_last", "_runaway", "anchors", "shift")

    def __init__(self, runaway: int = RUNAWAY_TICKS) -> None:
        self._runaway = runaway
        self._last: int | None = None
        self.shift: int | None = None  # what to add to a time of the stream, modulo WRAP; None before the first
        self.anchors = 0  # how often it was anchored; 1 in a stream without jumps

    def follow(self, time: int, arrived_ns: int) -> int:
        """The shift for a picture with this decoding time (in ticks) that arrived at `arrived_ns`."""
        now = ticks(arrived_ns)
        if self.shift is None or abs(signed(time + self.shift - now)) > self._runaway:
            self.shift = (now - time) % WRAP
            self.anchors += 1
        if self._last is not None and signed(time + self.shift - self._last) <= 0:
            self.shift = (self._last + 1 - time) % WRAP
        self._last = (time + self.shift) % WRAP
        return self.shift
