"""Frames of watch sessions between the hub and webrtc_peer: what waits for whom, and what is told in its place. Pure.

What a session is about is webrtc_peer's business. Here it is known only which it has, so that the hub hears of the end
of those that it has taken along.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from procs.errors import Refused
from procs.messages.watch import SessionsReady, Signal
from procs.unanswered import Kind, Sent, Unanswered
from procs.wire import envelope
from procs.wire.frames.watch import SignalAnswer, SignalIce, WatchEnded

SILENT_S = 3.0  # webrtc_peer says each second that it is there
KEPT_S = 10.0  # a viewer waits no longer for what it was told meanwhile
_FROM_PEER: dict[str, type[SignalAnswer | SignalIce | WatchEnded]] = {
    "signal_answer": SignalAnswer,
    "signal_ice": SignalIce,
    "watch_ended": WatchEnded,
}


class Ended(NamedTuple):
    """The hub is to hear that a session is over; `why` names the reason, for counting."""

    session_id: str
    why: str

    def text(self) -> str:
        """The frame."""
        return envelope.encode("watch_ended", WatchEnded(self.session_id, "error", self.why))


class Sessions:
    """Times are seconds of CLOCK_MONOTONIC. Begins as if webrtc_peer had just been heard."""

    def __init__(self, now: float) -> None:
        self._out = Unanswered(KEPT_S)
        self._heard_at = now
        self._pid = 0
        self._known: set[str] = set()  # those that webrtc_peer has, or that it is being told of

    def count(self, now: float) -> int | None:
        """How many webrtc_peer has; None while it is not there."""
        return len(self._known) if self._pid and now - self._heard_at <= SILENT_S else None

    def from_hub(self, kind: Kind, session_id: str, body: bytes, now: float) -> list[Ended]:
        """A frame for webrtc_peer."""
        if now - self._heard_at > SILENT_S:
            return [] if kind == "watch_ended" else [Ended(session_id, "nothing on the device takes watch sessions")]
        if kind == "watch_request":
            self._known.add(session_id)
        elif kind == "watch_ended":
            self._known.discard(session_id)
            self._out.drop(session_id)
        self._out.add(kind, session_id, body, now)
        return []

    def ready(self, message: SessionsReady, now: float) -> list[Ended]:
        """webrtc_peer is there, and has these. Another pid: all that the one before had is over."""
        has = set(message.sessions)
        waiting = self._waiting()
        over = self._known - has - waiting if self.is_other(message) else set()
        self._pid, self._heard_at, self._known = message.pid, now, has | waiting
        return self._end(over, "what had the session on the device has died")

    def is_other(self, message: SessionsReady) -> bool:
        """Whether that one is not the one heard before, and so may have missed what was sent."""
        return message.pid != self._pid

    @property
    def has_any(self) -> bool:
        """Whether webrtc_peer has a session, or is being told of one."""
        return bool(self._known)

    def gone(self) -> list[Ended]:
        """webrtc_peer has just died. What it had not taken is for the next one, which is being started."""
        return self._end(self._known - self._waiting(), "what had the session on the device has died")

    def over(self, session_id: str) -> None:
        """webrtc_peer itself has told the hub that this one is."""
        self._known.discard(session_id)
        self._out.drop(session_id)

    def taken(self, number: int) -> None:
        """webrtc_peer has this one."""
        self._out.taken(number)

    def due(self, now: float, *, all_of_them: bool = False) -> Iterator[Sent]:
        """What to send to webrtc_peer now, in this order; to be left at the first that can't be sent."""
        return self._out.due(now, all_of_them=all_of_them)

    def tick(self, now: float) -> list[Ended]:
        """What has become late."""
        late = {sent.signal.session_id for sent in self._out.late(now) if sent.signal.kind != "watch_ended"}
        found = self._end(late & self._known, "the device was too late with its answer")
        if now - self._heard_at > SILENT_S:
            found += self._end(set(self._known), "what has the session on the device does not answer")
        return found

    def _waiting(self) -> set[str]:
        return {sent.signal.session_id for sent in self._out.open() if sent.signal.kind == "watch_request"}

    def _end(self, sessions: set[str], why: str) -> list[Ended]:
        for session_id in sessions:
            self._known.discard(session_id)
            self._out.drop(session_id)
        return [Ended(session_id, why) for session_id in sorted(sessions)]


def frame(signal: Signal, body: bytes) -> str:
    """A signal of webrtc_peer as the hub gets it. Raises Refused for what is none."""
    kind = _FROM_PEER.get(signal.kind)
    if not kind:
        raise Refused(f"webrtc_peer sends a {signal.kind}")
    payload = envelope.parse(envelope.of_payload(signal.kind, body), kind)
    if payload.session_id != signal.session_id:
        raise Refused(f"{signal.kind} of another session than it says")
    return envelope.encode(signal.kind, payload)
