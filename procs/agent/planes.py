"""Which plane packets take to one peer: the best that both know and that answers; back to it once it answers again.

Pure: it is told the time, what has been heard, and asked when to probe. Each side chooses for what it sends, and takes
what comes on any plane, so that they need not agree.
"""

from __future__ import annotations

from collections.abc import Collection

LANE, RECORDS, PACKED, SINGLE = 3, 2, 1, 0  # the first one is chosen elsewhere (lane/lane.py)
PROBE_S = 1.0
AGAIN_S = 0.25  # a probe may be lost alone: on a bad path, one in ten with its answer
SILENT_S = 2.0
ANSWERS = 3  # in a row, after a fall


class Planes:
    """The choice for one connection. `plane` is the one to send on."""

    def __init__(self, ours: Collection[int], theirs: Collection[int], now: float) -> None:
        both = set(ours) & set(theirs)
        self._probing = RECORDS in both
        self._below = PACKED if PACKED in both else SINGLE
        self.plane = RECORDS if self._probing else self._below
        self._lived_at = now
        self._probed_at = now - PROBE_S
        self._asked_at: float | None = None  # the first probe since the last answer
        self._answers = 0
        self.falls = 0

    def must_probe(self, now: float) -> bool:
        """Whether a probe is to be sent now; if so, it is taken as sent."""
        unanswered = self._asked_at is not None
        every_s = AGAIN_S if unanswered and self.plane == RECORDS else PROBE_S
        if not self._probing or now - self._probed_at < every_s:
            return False
        if unanswered:
            self._answers = 0
        else:
            self._asked_at = now
        self._probed_at = now
        return True

    def answered(self, now: float) -> None:
        """A probe was answered."""
        self._asked_at, self._lived_at = None, now
        self._answers += 1
        if self.plane != RECORDS and self._probing and self._answers >= ANSWERS:
            self.plane = RECORDS

    def lives(self, now: float) -> None:
        """Something came over the control channel. When that is silent too, no plane is better than another."""
        if self._asked_at is not None and now - self._lived_at > SILENT_S:
            self._asked_at = now  # both were silent, and have begun again
        self._lived_at = now

    def check(self, now: float) -> int:
        """Fall back if it is time to; the plane to use."""
        silent = self._asked_at is not None and now - self._asked_at >= SILENT_S
        if self.plane == RECORDS and silent and now - self._lived_at < SILENT_S:
            self.plane, self._answers = self._below, 0
            self.falls += 1
        return self.plane
