"""How much one viewer can take: its reports of loss and its own estimate, to a bit rate to ask the source for. Pure.

Promises: nothing is asked for while all goes well; less at once when packets are lost, more again in small steps and
never far beyond what was seen to arrive, each asked for at most once a second and only when it differs by a tenth;
never below FLOOR.
"""

from __future__ import annotations

from collections import deque

FLOOR = 150_000  # bit/s
NO_LIMIT = 200_000_000  # what `RateWanted` says when the viewer takes whatever comes
LOSSY, CLEAN = 0.10, 0.02  # fraction lost, above which to slow down, below which to speed up
PERSISTS_S = 2.0  # an estimate below what is sent counts when it stays there: browsers begin far too low
SETTLING_S = 4.0
EVERY_S = 1.0
UP = 1.1  # a second
AHEAD = 2.0  # how far the limit may be above what was sent lately: of more the path has not shown that it takes it
ABOVE = 1.25  # the same of the viewer's estimate: encoders give less than they may
FREE_AFTER_S = 30.0  # without a reason to slow down
STEP = 0.10
WINDOW_S = 1.0
FEWEST = 10  # packets that say something of a path
LATELY = 4  # windows


class Losses:
    """What part of the packets of a second was lost. A browser reports many times a second while it misses some, and
    the fraction in one report is of a handful of packets: one of nine is no path that loses a tenth."""

    def __init__(self) -> None:
        self.fraction = 0.0
        self._began: tuple[int, int, float] | None = None  # the second, at its beginning

    def reported(self, highest: int, lost: int, now: float) -> float | None:
        """A report's highest sequence number, and how many were lost in all. The fraction of a second that has ended
        with it, None before."""
        if self._began is None or highest < self._began[0]:
            self._began = highest, lost, now
        expected, missing = highest - self._began[0], lost - self._began[1]
        if now - self._began[2] < WINDOW_S or expected < FEWEST:
            return None
        self.fraction = min(1.0, max(0.0, missing / expected))
        self._began = highest, lost, now
        return self.fraction


class Rate:
    """Of one viewer. `sent_bits`: what it was sent in the last full second; `limit`: what it is asked for, or None."""

    def __init__(self) -> None:
        self.sent_bits = 0.0
        self.limit: int | None = None
        self._lately: deque[float] = deque(maxlen=LATELY)
        self._estimate = float("inf")
        self._slowed_at = self._raised_at = 0.0
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
            self._lately.append(self.sent_bits)
            self._window, self._bytes = now, 0

    def reported(self, lost: float, now: float) -> int | None:
        """The fraction of packets lost in the last second. Gives what to ask for now, None for no change."""
        if not self.sent_bits or now - self._began < SETTLING_S:  # the burst of who joins says little of the path
            return None
        base = min(self.limit or NO_LIMIT, self.sent_bits)
        if lost > LOSSY:
            self._slow_down(base * (1 - lost / 2), now)
        elif lost < CLEAN and self.limit:
            self.limit = self._more(self.limit, now)
        return self._ask(now)

    def estimated(self, bits: int, now: float) -> int | None:
        """REMB: what the viewer believes that its path takes. As `reported`."""
        self._estimate = bits
        if not self.sent_bits or now - self._began < SETTLING_S or bits >= self.sent_bits * (1 - STEP):
            self._low_since = None
            return None
        self._low_since = now if self._low_since is None else self._low_since
        if now - self._low_since < PERSISTS_S:
            return None
        self._slow_down(bits, now)
        return self._ask(now)

    def _slow_down(self, bits: float, now: float) -> None:
        self.limit = max(FLOOR, int(bits))
        self._slowed_at = self._raised_at = now

    def _more(self, limit: int, now: float) -> int | None:
        """What is to become of it after a clean report, of which there may be one a second, or twenty."""
        if now - self._slowed_at >= FREE_AFTER_S:
            return None
        raised = limit * UP ** min(now - self._raised_at, 2 * EVERY_S)
        self._raised_at = now
        return max(limit, int(min(raised, AHEAD * max(self._lately), ABOVE * self._estimate)))

    def _ask(self, now: float) -> int | None:
        wanted = self.limit or NO_LIMIT
        if now - self._asked_at < EVERY_S or abs(wanted - self._asked) <= STEP * self._asked:
            return None
        self._asked, self._asked_at = wanted, now
        return wanted
