"""The UDP port that all peers share, as a session in a child of webrtc_peer has it: tun_pump owns the socket, and
datagrams go to it and come from it over the bus."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from procs import log
from procs.agent.conduit import Window, packets_of
from procs.agent.lane.way import Address, Take
from procs.messages.tunnel import Arrive, Depart, Listening, PumpUp, Reached

MOST_CONNECTIONS = 16  # one, and those before it that are being closed
MOST_SENDERS = 8  # of one
Say = Callable[[msgspec.Struct, bytes], bool]


class BusPort:
    """`say(message, body)` tells tun_pump, and whether it went. `dropped` counts datagrams that found no room."""

    def __init__(self, peer: str, say: Say) -> None:
        self._peer, self._say = peer, say
        self._takes: dict[str, Take] = {}
        self._heard: dict[str, dict[Address, None]] = {}  # where datagrams came from, those of now at the end
        self._window = Window()
        self.number = 0
        self.dropped = 0

    # As procs/agent/lane/way.py has it

    def expect(self, ufrag: str, take: Take) -> None:
        """Have `take` get what is for this ICE connection."""
        if ufrag not in self._takes and len(self._takes) >= MOST_CONNECTIONS:
            gone = next(iter(self._takes))
            log.warning("too many connections by the port, the oldest is left", ufrag=gone)
            del self._takes[gone], self._heard[gone]
        self._takes[ufrag] = take
        self._heard.setdefault(ufrag, {})
        self.tell()

    def send(self, ufrag: str, local: str, to: Address, joined: bytes, step: int) -> int:
        """Have these sent; what is too much to be on its way is lost, as it may be behind it, too."""
        fits = joined
        if len(joined) > (room := self._window.room):
            fits = joined[: room // step * step]
        count, taken = -(-len(joined) // step), -(-len(fits) // step)
        if not fits or not self._say(self._departing(ufrag, local, to, fits, step), fits):
            taken = 0
        self.dropped += count - taken
        return taken

    def forget(self, ufrag: str) -> None:
        """That connection has gone."""
        if self._takes.pop(ufrag, None):
            del self._heard[ufrag]
            self.tell()

    # Towards tun_pump

    def tell(self) -> None:
        """What is to come to us: each second, and at once when tun_pump may not know it."""
        at, seen = self._window.sends(0)
        heard = {ufrag: [*senders] for ufrag, senders in self._heard.items()}
        self._say(Listening(self._peer, os.getpid(), [*self._takes], heard, at, seen), b"")

    def is_up(self, up: PumpUp) -> None:
        """The socket has this number now; one that tun_pump has no more is back with it, and so keeps it meanwhile."""
        self.number = up.port

    def heard(self, message: Arrive | Reached, body: bytes) -> None:
        """Datagrams, or how many of ours have come. Raises Refused."""
        self._window.heard(message.at, message.seen)
        if isinstance(message, Arrive):
            if take := self._takes.get(message.ufrag):
                sender = message.host, message.port
                self._keep(self._heard[message.ufrag], sender)
                take(message.local, sender, packets_of(body))
            if self._window.is_news_due():
                self._say(Reached(*self._window.sends(0)), b"")

    def _keep(self, senders: dict[Address, None], sender: Address) -> None:
        senders.pop(sender, None)
        senders[sender] = None
        if len(senders) > MOST_SENDERS:
            del senders[next(iter(senders))]

    def _departing(self, ufrag: str, local: str, to: Address, fits: bytes, step: int) -> Depart:
        return Depart(ufrag, local, to[0], to[1], step, *self._window.sends(len(fits)))
