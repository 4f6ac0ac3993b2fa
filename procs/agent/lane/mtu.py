"""How large a datagram may be that reaches the other side whole. Pure: it says what to send, and is told what was
answered.

The kernel is told never to fragment, and what says "too big" on the way is not believed and often not even sent: only
an authenticated answer to a padded ping counts. At first, after a change of the path and every minute, pings of several
sizes leave together, so that one round trip tells all. One of the size in use leaves each second. Where those are lost
and small ones that were sent later are answered, the path has become narrower, and it is looked for again.
"""

from __future__ import annotations

PING_S, AGAIN_S = 1.0, 0.25  # between pings; while one is unanswered
TRIES = 3  # of each size
LOST = 3  # pings in a row, before the path counts as too narrow
RAISE_S = 60.0  # between looks for more
QUICK_S = 5.0  # of silence, after which one small ping a second is enough
SMALL = 0  # a ping without padding
# Of UDP datagrams: jumbo frames, then Ethernet whole over IPv4 and IPv6, then inside PPPoE and other tunnels.
SIZES = (8952, 4052, 1472, 1452, 1432, 1412, 1392, 1372, 1332, 1292, 1252, 1232)


class PathMtu:
    """`size`: of the largest datagram that is known to go through, 0 while none is. `least`: what is worth having,
    `most`: what is wanted. `is_settled`: the first look is over, so that nobody is told a size that was only the first
    to be answered."""

    def __init__(self, least: int, most: int) -> None:
        self._all = [most, *(size for size in SIZES if least < size < most), *([least] if least < most else [])]
        self.size, self.is_settled = 0, False
        self._looked_at = self._next = float("-inf")
        self._found = self._tries = 0
        self._falls = True
        self._silent_since: float | None = None
        self._unanswered: list[float] = []  # when pings of the size in use were sent
        self._open: list[int] = []  # sizes that are looked for
        self._look(self._all, falls=True)

    def due(self, now: float) -> list[int]:
        """Sizes of the pings that are to be sent now; they are taken as sent."""
        if now < self._next:
            return []
        if self._open and self._tries >= TRIES and (self._found or not self._falls):
            self._settle(now)
        if self._silent_since is None:
            self._silent_since = now
        if self.is_silent(now):
            self._next = now + PING_S
            return [SMALL]
        self._next = now + AGAIN_S
        if not self._open and self.size < self._all[0] and now - self._looked_at >= RAISE_S:
            self._look([size for size in self._all if size > self.size], falls=False)
        if self._open:
            self._tries += 1
            if self._tries > TRIES:  # none of them goes through, though small ones may
                self._next = now + PING_S
                return [self._open[-1], SMALL]
            return [*self._open, SMALL]
        self._unanswered = [*self._unanswered[-LOST:], now]
        return [self.size, SMALL] if len(self._unanswered) > 1 else [self.size]

    def answered(self, size: int, sent_at: float, now: float) -> None:
        """The ping of this size was, which had been sent then."""
        was_silent = self.is_silent(now)
        self._silent_since = None
        if self._open:
            if size > self._found:
                self._raise(size, now)
            elif was_silent:
                self._tries, self._next = 0, now
        elif size == self.size:
            self._unanswered, self._next = [], sent_at + PING_S
        elif sum(at < sent_at for at in self._unanswered) >= LOST:
            self._look([each for each in self._all if each <= self.size], falls=True)

    def is_silent(self, now: float) -> bool:
        """Whether nothing was answered for long."""
        return self._silent_since is not None and now - self._silent_since > QUICK_S

    def refused(self, size: int, now: float) -> None:
        """Our own machine sends none of this size that way."""
        if size <= self.size:
            self._look([each for each in self._all if each < size], falls=True)
        elif self._open:
            self._open = [each for each in self._open if each < size]
            if not self._open and (self._found or not self._falls):
                self._settle(now)

    def moved(self) -> None:
        """The path is another."""
        self._look(self._all, falls=True)

    def _look(self, sizes: list[int], *, falls: bool) -> None:
        """Find out which of these go through; `falls`: none is known to."""
        self._open, self._falls = sizes or self._all[-1:], falls
        self._found = self._tries = 0
        self._unanswered = []
        self._next = float("-inf")

    def _raise(self, size: int, now: float) -> None:
        self._found = size
        self._open = [each for each in self._open if each > size]
        if self._falls or size > self.size:
            self.size = size
        if not self._open:
            self._settle(now)

    def _settle(self, now: float) -> None:
        self._open, self.is_settled = [], True
        self._looked_at = now
        self._next = now + PING_S
