"""The sessions that packets go to: which are there, what each can take, and how much is on its way to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from procs.agent.conduit import Conduit
from procs.messages.tunnel import NOT_TRIED_YET, SESSION_GONE, PeerUp

SILENT_S = 3.0


class End:
    """Of one peer."""

    def __init__(self, until: float) -> None:
        self.conduit = Conduit()
        self.until = until
        self.up: PeerUp | None = None  # the last one
        self.why = NOT_TRIED_YET  # there is none
        self.pid = 0  # of who has it, or is about to
        self.most = 65535  # bytes of a packet that the peer takes, as was said last
        self.key = ""  # by which the peer has proven who it is, or is let in
        self._counted: dict[str, tuple[int, int]] = {}  # of whom, by its process, and how many it has told us of

    def more(self, what: str, now: PeerUp) -> int:
        """Since it was asked last, of a figure that whoever has the session counts itself."""
        told, (pid, before) = int(now.stats.get(what, 0)), self._counted.get(what, (0, 0))
        self._counted[what] = (now.pid, told)
        return max(0, told - (before if pid == now.pid else 0))


class Ends:
    """Of all that are configured. At first each is thought to be there: who was before we were killed is heard of
    within a second, and what its peers send needs not wait for that."""

    def __init__(self, peers: Iterable[str], now: float) -> None:
        self._of = {peer: End(now + SILENT_S) for peer in peers}

    def __getitem__(self, peer: str) -> End:
        return self._of[peer]

    def heard(self, peer: str, at: int, seen: int, now: float) -> End:
        """Something came of it."""
        end = self._of[peer]
        end.conduit.heard(at, seen)
        end.until = now + SILENT_S
        return end

    def listens(self, peer: str, pid: int, now: float) -> bool:
        """Who has its session, or will have, is there; whether that is another one than before."""
        end = self._of[peer]
        end.until, before, end.pid = now + SILENT_S, end.pid, pid
        return before != pid

    def away(self, peer: str, why: str, now: float) -> None:
        """Its end is there and has no session. Packets go on to it: it keeps the last of them until there is one."""
        end = self._of[peer]
        end.until, end.why, end.up = now + SILENT_S, why, None

    def there(self, now: float) -> list[str]:
        """Those that packets are sent to."""
        return [peer for peer, end in self._of.items() if now < end.until]

    def gone(self, now: float) -> list[str]:
        """Those that have just fallen silent, told once."""
        found = [peer for peer, end in self._of.items() if (end.up or end.pid) and now >= end.until]
        for peer in found:
            self._of[peer].up, self._of[peer].pid, self._of[peer].why = None, 0, SESSION_GONE
        return found

    def is_there(self, peer: str, now: float) -> bool:
        """Whether packets are sent to it."""
        return now < self._of[peer].until


def has_changed(before: PeerUp | None, now: PeerUp) -> bool:
    """Whether it is worth a line in the log."""
    return before is None or any(
        getattr(before, name) != getattr(now, name) for name in ("pid", "mtu", "plane", "path", "remote")
    )
