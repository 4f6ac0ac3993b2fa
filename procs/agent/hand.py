"""What one agent writes to one other in signalling, and how it reads what the other has written: signed by whom, and
what it can do. Pure but for the keys that are kept."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import msgspec

from procs.agent import caps
from procs.agent.caps import Caps
from procs.agent.identity import Identity
from procs.wire.signal import Answer, Bye, Described, Offer, Trickle
from procs.wire.webrtc import Candidate

D = TypeVar("D", Offer, Answer)
NO_CAPS = Caps()


class Read(NamedTuple):
    """Of an offer or an answer."""

    signed: bool
    caps: Caps


class Hand:
    """Of the agent `me`, towards `peer`."""

    def __init__(self, me: str, peer: str, identity: Identity, can: Caps) -> None:
        self._me, self._peer, self._identity, self._can = me, peer, identity, can
        self.key = ""  # of who wrote what was read last; "": it was not signed

    def offer(self, sdp: str, session: str, restarts: int) -> Offer:
        """An offer, signed."""
        return self._sign(Offer(self._me, self._peer, sdp, session), restarts)

    def answer(self, sdp: str, offer: Offer, restarts: int, *, signed: bool) -> Answer:
        """The answer to that offer; who signs nothing is told nothing that is ours."""
        answer = Answer(self._me, self._peer, sdp, offer.session)
        return self._sign(answer, restarts, offer.sdp) if signed else answer

    def candidate(self, text: str | None, session: str) -> Trickle:
        """A way to us; None: there are no more."""
        return Trickle(self._me, self._peer, Candidate(text, "0", 0) if text else None, session)

    def bye(self, session: str, why: str) -> Bye:
        """It is over."""
        return Bye(self._me, self._peer, session, why[:500])

    def read(self, frame: Described, offer_sdp: str = "") -> Read:
        """What the peer has written. Raises Refused for what is not from it."""
        signed = self._identity.check(frame, offer_sdp)
        self.key = frame.auth.key if frame.auth and signed else ""
        return Read(signed, caps.read(frame.auth.caps) if frame.auth and signed else NO_CAPS)

    def met(self) -> None:
        """There is a connection with the peer, who has signed for it."""
        self._identity.met(self._peer)

    @property
    def trusted(self) -> str:
        """The key by which the peer is let in now, "" if there is none."""
        return self._identity.trusted(self._peer)

    def why_not(self) -> str:
        """Why there may be no connection any more with who has written that; "" while there may be."""
        return self._identity.why_not(self._peer, self.key) if self.key else ""

    def _sign(self, frame: D, restarts: int, offer_sdp: str = "") -> D:
        text = msgspec.structs.replace(self._can, restarts=restarts).text
        signed = self._identity.signed(frame, text, offer_sdp)
        assert isinstance(signed, type(frame))
        return signed
