"""The tunnel's sessions: a child for each peer, for ever, and what it is still to be told. Pure: what happened and the
time go in, what to do comes out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from procs.backoff import delays
from procs.messages.tunnel import TunnelBeat

MAX_HELD = 64  # frames for a child that is not there yet: an offer, and its candidates
BORN_S = 15.0  # from the fork to the first beat: at our own start the zygote has to import everything first
BEAT_S = 3.0  # without one the child is dead, or stands still
STEADY_S = 10.0  # a child that has lived for so long starts the back-off anew


class Fork(NamedTuple):
    """Have a child born for a peer."""

    child: str
    peer: str


class Kill(NamedTuple):
    """End a child, whatever it does."""

    child: str


class _Tunnel:
    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.child = ""  # "" while there is none
        self.pid = 0
        self.due_at = 0.0  # for the next child
        self.born_at = self.beat_at = 0.0
        self.beat: TunnelBeat | None = None  # of this child
        self.held: deque[bytes] = deque(maxlen=MAX_HELD)
        self.pauses: Iterator[float] = delays()


class Tunnels:
    """All of them. Times are seconds of CLOCK_MONOTONIC."""

    def __init__(self, peers: Iterable[str]) -> None:
        self._of = {peer: _Tunnel(peer) for peer in peers}
        self._numbers = itertools.count(1)

    def born(self, child: str, pid: int) -> None:
        """A child is there."""
        if its := self._of_child(child):
            its.pid = pid

    def gone(self, child: str, now: float) -> str:
        """A child has ended: whose it was, "" if it is none of these."""
        its = self._of_child(child)
        if not its:
            return ""
        if now - its.born_at > STEADY_S:
            its.pauses = delays()
        its.child, its.beat, its.due_at = "", None, now + next(its.pauses)
        its.held.clear()  # they were for it: the next one begins anew
        return its.peer

    def beaten(self, beat: TunnelBeat, now: float) -> bool:
        """A child says how it does; whether it is the first time."""
        its = self._of.get(beat.peer)
        if not its or not its.child or its.pid not in (0, beat.pid):
            return False
        is_first = its.beat is None
        its.beat, its.beat_at = beat, now
        return is_first

    def hold(self, peer: str, frame: bytes) -> bool:
        """Keep a frame for its child, until `waiting` is emptied; False for who is no peer of the tunnel."""
        its = self._of.get(peer)
        if its:
            its.held.append(frame)
        return bool(its)

    def waiting(self, peer: str) -> deque[bytes]:
        """What its child is to be told, in this order; empty while it can't be."""
        its = self._of[peer]
        return its.held if its.beat else deque()

    @property
    def alive(self) -> list[str]:
        """Peers whose children have said something."""
        return [peer for peer, its in self._of.items() if its.beat]

    @property
    def is_one_down(self) -> bool:
        """Whether a peer is not to be reached, as far as is known."""
        return any(not its.beat or its.beat.state != "connected" for its in self._of.values())

    def tick(self, now: float) -> list[Fork | Kill]:
        """What is due."""
        found: list[Fork | Kill] = []
        for its in self._of.values():
            if not its.child:
                if now >= its.due_at:
                    its.child, its.pid = f"tunnel-{next(self._numbers)}", 0
                    its.born_at = its.beat_at = now
                    found.append(Fork(its.child, its.peer))
            elif now - its.beat_at > (BEAT_S if its.beat else BORN_S):
                its.beat_at = now  # once is enough for a while; that it has ended is told by whoever forked it
                found.append(Kill(its.child))
        return found

    def _of_child(self, child: str) -> _Tunnel | None:
        return next((its for its in self._of.values() if its.child == child), None)
