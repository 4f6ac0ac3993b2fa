"""What sessions in other processes send and get by our port: the other end of procs/webrtc_peer/bus_port.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from procs.agent.conduit import Window, body_of
from procs.agent.lane.way import Address, Way
from procs.errors import Refused
from procs.messages.tunnel import Arrive, Depart, Listening, Reached


class Below(Way, Protocol):
    """As much of a Port as is used here."""

    def heard(self, ufrag: str, senders: Sequence[Address]) -> None:
        """Datagrams of that connection came from there, before we were."""


Say = Callable[[str, msgspec.Struct, bytes], bool]


class _Session:
    def __init__(self) -> None:
        self.window = Window()
        self.ufrags: set[str] = set()


class Ways:
    """`say(peer, message, body)` tells who has the session with a peer, and whether it went. `dropped` counts datagrams
    that there was no room for, on their way to sessions, and runs of some that were for no connection of theirs."""

    def __init__(self, port: Below, peers: Sequence[str], say: Say) -> None:
        self._port, self._say = port, say
        self._of = {peer: _Session() for peer in peers}
        self.dropped = 0

    def listening(self, peer: str, message: Listening) -> None:
        """This is what is to come to it, and nothing else. Raises Refused for what another one has."""
        its, ufrags = self._of[peer], {*message.ufrags}
        its.window.heard(message.at, message.seen)
        taken = {each for other in self._of.values() if other is not its for each in other.ufrags}
        for ufrag in its.ufrags - ufrags:
            self._port.forget(ufrag)
        for ufrag in ufrags - taken - its.ufrags:
            self._port.expect(ufrag, partial(self._arrived, peer, ufrag))
            self._port.heard(ufrag, message.heard.get(ufrag, []))
        its.ufrags = ufrags - taken
        self._tell(peer, its)
        if ufrags & taken:
            raise Refused(f"{peer!r} wants what is another's")

    def depart(self, peer: str, message: Depart, body: bytes) -> None:
        """Have these sent, by a connection that it listens for."""
        its = self._of[peer]
        its.window.heard(message.at, message.seen)
        if message.ufrag not in its.ufrags:  # or it has not said yet that it is, to us who are new
            self.dropped += 1
            return
        self._port.send(message.ufrag, message.local, (message.host, message.port), body, message.step)
        if its.window.is_news_due():
            self._tell(peer, its)

    def reached(self, peer: str, message: Reached) -> None:
        """So much has come there."""
        self._of[peer].window.heard(message.at, message.seen)

    def gone(self, peer: str) -> None:
        """It is silent: nothing comes to it."""
        its = self._of[peer]
        for ufrag in its.ufrags:
            self._port.forget(ufrag)
        its.ufrags = set()

    def _arrived(self, peer: str, ufrag: str, local: str, sender: Address, datagrams: list[bytes]) -> None:
        window, body = self._of[peer].window, body_of(datagrams)
        if len(body) > window.room:
            self.dropped += len(datagrams)
            return
        message = Arrive(ufrag, local, sender[0], sender[1], *window.sends(len(body)))
        if not self._say(peer, message, body):
            self.dropped += len(datagrams)

    def _tell(self, peer: str, its: _Session) -> None:
        self._say(peer, Reached(*its.window.sends(0)), b"")
