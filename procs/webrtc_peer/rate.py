"""How much one viewer can take: its reports of loss and its own estimate, to a bit rate to ask the source for. Pure.

Promises: nothing is asked for while all goes well; less at once when packets are lost, more again in small steps, each
asked for at most once a second and only when it differs by a tenth; never below FLOOR.
"""

from __future__ import annotations

FLOOR = 150_000  # bit/s
NO_LIMIT = 200_000_000  # what `RateWanted` says when the viewer takes whatever comes
LOSSY, CLEAN = 0.10, 0.02  # fraction lost, above which to slow down, below which to speed up
PERSISTS_S = 2.0  # an estimate below what is sent counts when it stays there: browsers begin far too low
SETTLING_S = 4.0
EVERY_S = 1.0
DOWN, UP = 0.85, 1.08
STEP = 0.10
WINDOW_S = 1.0


class Rate:
    """Of one viewer. `sent_bits`: what it was sent in the last full second; `limit`: what it is asked for, or None."""

    def __init__(self) -> None:
        self.sent_bits = 0.0
        self.limit: int | None = None
        self._asked = NO_LIMIT
        self._asked_at = float("-inf")
        self._began = self._window = -1.0
        self._bytes = 0
        self._low_since: float | None = None

    def sent(self, size: int, now: float) -> None:
        """So many bytes have gone out."""
        if self._window < 0:
            self._began = self._window = now
        self._bytes += size
        if now - self._window >= WINDOW_S:
            self.sent_bits = self._bytes * 8 / (now - self._window)
            self._window, self._bytes = now, 0

    def reported(self, lost: float, now: float) -> int | None:
        """A receiver report: the fraction lost since the last. Gives what to ask for now, None for no change."""
        if not self.sent_bits or now - self._began < SETTLING_S:  # the burst of who joins says little of the path
            return None
        base = min(self.limit or NO_LIMIT, self.sent_bits)
        if lost > LOSSY:
            self.limit = max(FLOOR, int(base * (1 - lost / 2)))
        elif lost < CLEAN and self.limit:
            self.limit = int(self.limit * UP)
            if self.limit > 2 * self.sent_bits:  # the source gives no more than that anyway
                self.limit = None
        return self._ask(now)

    def estimated(self, bits: int, now: float) -> int | None:
        """REMB: what the viewer believes that its path takes. As `reported`."""
        if not self.sent_bits or now - self._began < SETTLING_S or bits >= self.sent_bits * (1 - STEP):
            self._low_since = None
            return None
        self._low_since = now if self._low_since is None else self._low_since
        if now - self._low_since < PERSISTS_S:
            return None
        self.limit = max(FLOOR, int(bits * DOWN))
        return self._ask(now)

    def _ask(self, now: float) -> int | None:
        wanted = self.limit or NO_LIMIT
        if now - self._asked_at < EVERY_S or abs(wanted - self._asked) <= STEP * self._asked:
            return None
        self._asked, self._asked_at = wanted, now
        return wanted
