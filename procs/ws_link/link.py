"""One control connection, from hello to its end, and when to try the next. Pure: frames and the time in, events out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from procs import backoff
from procs.errors import Refused
from procs.messages.limits import is_session_id
from procs.settings import VERSION
from procs.unanswered import Kind
from procs.wire import challenge, envelope
from procs.wire.envelope import Envelope
from procs.wire.frames import device
from procs.wire.frames.connection import Challenge, ChallengeResp, Error, Heartbeat, Hello, HelloAck
from procs.wire.frames.device import Capabilities, ProxyHttp
from procs.wire.frames.suite import SuiteRestart, SuiteWatch
from procs.wire.frames.watch import SignalIce, SignalOffer, WatchEnded, WatchRequest
from procs.wire.mux1 import MuxLimits
from procs.wire.scalars import Id
from procs.ws_link.identity import Identity

AGENT_VERSION = f"{VERSION}-planaria"
MAX_MESSAGE = 16 * 1024 * 1024  # what is still read, to be refused; beyond it the connection breaks
CAPS = ["mux1", "challenge"]
SUITE = "suite"  # of a device whose suite has a warden: the hub may look at it, and restart what is in it
REPLACED = 1012
RETRY_AFTER_CAP_S = 300.0
_OfSession = WatchRequest | SignalOffer | SignalIce | WatchEnded
_SESSIONS: dict[str, tuple[Kind, type[_OfSession]]] = {
    "watch_request": ("watch_request", WatchRequest),
    "signal_offer": ("signal_offer", SignalOffer),
    "signal_ice": ("signal_ice", SignalIce),
    "watch_ended": ("watch_ended", WatchEnded),
}


class Pace(NamedTuple):
    """How often what is said, and how long is waited."""

    heartbeat_s: float = 15.0
    capabilities_s: float = 30.0
    silence_s: float = 25.0  # nothing heard for so long, though every heartbeat is answered: the link is dead
    open_s: float = 10.0  # for a connection
    step_s: float = 10.0  # for each answer until the hello is taken
    send_s: float = 20.0  # for the hub to read a frame
    nobody_s: float = 10.0  # for a proxy to come: on a busy machine one takes seconds to start
    settled_s: float = 3.0  # a connection that is taken for so long ends a row of failures
    replaced_s: float = 5.0  # two devices with one identity would otherwise throw each other out without end


PACE = Pace()


class Send(NamedTuple):
    """A frame for the hub."""

    text: str


class Connected(NamedTuple):
    """The hub has taken us. `mux`: it takes data connections; `proved`: it has shown that it knows us; `suite`: it
    wants to know of our suite."""

    mux: bool
    proved: bool
    suite: bool = False


class Asked(NamedTuple):
    """The hub wants a request made."""

    request: ProxyHttp


class Unanswerable(NamedTuple):
    """The hub wants a request made that can't be; it is to be answered with this status."""

    rid: str
    status: int
    reason: str


class Answered(NamedTuple):
    """The hub has answered a question of ours: a frame of whatever type."""

    request_id: str
    answer: Envelope


class Signalled(NamedTuple):
    """The hub has a frame of a watch session, with its payload as it came."""

    kind: Kind
    session_id: str
    body: bytes


class Paired(NamedTuple):
    """A user has claimed this device with this code."""

    code: str


class SuiteWatched(NamedTuple):
    """Somebody at the hub wants to know how the suite is, for so long."""

    for_s: float


class RestartAsked(NamedTuple):
    """Somebody at the hub wants a process of the suite restarted."""

    restart: SuiteRestart
    request_id: str


class Noted(NamedTuple):
    """Something was not taken, and the link lives. `kind` is for counting, `reason` for reading."""

    kind: str
    reason: str


class End(NamedTuple):
    """The connection is over, or is to be closed."""

    reason: str
    code: int = 0  # the hub's close code or HTTP status, if it gave one
    retry_after_s: float = 0.0


Event = (
    Send | Connected | Asked | Unanswerable | Answered | Signalled | Paired | SuiteWatched | RestartAsked | Noted | End
)
State = Literal["hello", "proof", "connected"]


class _Rid(msgspec.Struct, frozen=True):
    rid: Id


class Session:
    """What is said on one connection. Begins with `hello`; each frame goes to `received`, the time to `tick`."""

    def __init__(
        self, me: Identity, keys: challenge.Keys, now: float, pace: Pace = PACE, *, has_suite: bool = False
    ) -> None:
        self._me, self._keys, self._pace = me, keys, pace
        self._caps = [*CAPS, SUITE] if has_suite else CAPS
        self._shows_suite = False  # both sides know of it
        self._nonce = challenge.nonce()
        self._transcript = b""  # once the hub has sent its challenge
        self.state: State = "hello"
        self._step_began = self._heard_at = now
        self._heartbeat_at = self._capabilities_at = now
        self._known: dict[str, Callable[[Envelope, float], list[Event]]] = {
            "challenge": self._challenged,
            "hello_ack": self._taken,
            "proxy_http": self._asked,
            "paired": self._paired,
            "suite_watch": self._watched,
            "suite_restart": self._restart_asked,
        }

    def hello(self, go2rtc_http: str, *, show_secret: bool) -> str:
        """The first frame."""
        payload = Hello(
            device_id=self._me.device_id,
            agent_version=AGENT_VERSION,
            go2rtc_http=go2rtc_http,
            device_secret=self._me.secret if show_secret else None,
            caps=self._caps,
            mux=MuxLimits(),
            instance=self._me.instance,
            nonce=self._nonce,
        )
        return envelope.encode("hello", payload)

    def received(self, text: str, now: float) -> list[Event]:
        """What a text frame means. Whatever it is, no exception."""
        self._heard_at = now
        try:
            frame = envelope.decode(text)
        except Refused as reason:
            return [Noted("malformed frame", str(reason)), *_too_large(text)]
        try:
            return self._events(frame, now)
        except Refused as reason:
            noted = Noted(f"malformed {frame.type}" if frame.type in _TYPES else "malformed frame", str(reason))
            return [noted, *_unanswerable(frame, 400, str(reason))]

    def _events(self, frame: Envelope, now: float) -> list[Event]:
        if handle := self._known.get(frame.type):
            return handle(frame, now)
        if frame.type in _SESSIONS:
            return [self._signalled(frame)]
        if frame.request_id:
            return [Answered(frame.request_id, frame)]
        if frame.type == "error":
            return [Noted("error of the hub", envelope.parse(frame, Error).message)]
        if frame.type != "heartbeat_ack":
            return [Noted("unknown type", frame.type)]
        return []

    def _challenged(self, frame: Envelope, now: float) -> list[Event]:
        nonce = envelope.parse(frame, Challenge).nonce
        if self.state != "hello":
            raise Refused("a challenge that does not follow hello")
        self.state, self._step_began = "proof", now
        self._transcript = challenge.transcript(self._me.device_id, self._me.instance, self._nonce, nonce)
        proof = challenge.proof(self._keys, self._transcript)
        return [Send(envelope.encode("challenge_resp", ChallengeResp(proof)))]

    def _taken(self, frame: Envelope, now: float) -> list[Event]:
        ack = envelope.parse(frame, HelloAck)
        if self.state == "connected":
            raise Refused("a second hello_ack")
        if ack.device_id != self._me.device_id:
            return [End(f"the hub takes us for {ack.device_id!r}")]
        proved = bool(self._transcript)
        if proved and not challenge.check_signature(self._keys, self._transcript, ack.signature or ""):
            return [End("the hub can't show that it knows this device")]
        self.state = "connected"
        self._heartbeat_at = self._capabilities_at = now
        self._shows_suite = SUITE in self._caps and SUITE in ack.caps
        return [Connected("mux1" in ack.caps and ack.mux is not None, proved, self._shows_suite)]

    def _asked(self, frame: Envelope, now: float) -> list[Event]:
        request = envelope.parse(frame, ProxyHttp)
        if self.state != "connected":
            raise Refused("a request before hello_ack")
        return [Asked(request)]

    def _signalled(self, frame: Envelope) -> Signalled:
        kind, payload = _SESSIONS[frame.type]
        session_id = envelope.parse(frame, payload).session_id
        if self.state != "connected":
            raise Refused("a watch session before hello_ack")
        if not is_session_id(session_id):
            raise Refused("a session id with other than visible ASCII in it")
        return Signalled(kind, session_id, bytes(frame.payload))

    def _paired(self, frame: Envelope, now: float) -> list[Event]:
        return [Paired(envelope.parse(frame, device.Paired).code)]

    def _watched(self, frame: Envelope, now: float) -> list[Event]:
        asked = envelope.parse(frame, SuiteWatch)
        self._refuse_unshown()
        return [SuiteWatched(asked.for_s)]

    def _restart_asked(self, frame: Envelope, now: float) -> list[Event]:
        asked = envelope.parse(frame, SuiteRestart)
        self._refuse_unshown()
        if not frame.request_id:
            raise Refused("suite_restart without a request_id")
        return [RestartAsked(asked, frame.request_id)]

    def _refuse_unshown(self) -> None:
        if not self._shows_suite:
            raise Refused("the suite is not shown on this connection")

    def tick(self, now: float, streams: dict[str, Any]) -> list[Event]:
        """What is due. `streams`: what is announced as capabilities."""
        if self.state != "connected":
            late = now - self._step_began > self._pace.step_s
            return [End("no answer to hello" if self.state == "hello" else "no answer to the proof")] if late else []
        if now - self._heard_at > self._pace.silence_s:
            return [End(f"nothing heard for {self._pace.silence_s:g} s")]
        due: list[Event] = []
        if now - self._heartbeat_at >= self._pace.heartbeat_s:
            self._heartbeat_at = now
            due.append(Send(envelope.encode("heartbeat", Heartbeat())))
        if now - self._capabilities_at >= self._pace.capabilities_s:
            due.append(self.capabilities(now, streams))
        return due

    def capabilities(self, now: float, streams: dict[str, Any]) -> Send:
        """What go2rtc has, to be sent now."""
        self._capabilities_at = now
        try:
            return Send(envelope.encode("capabilities", Capabilities(self._me.device_id, streams)))
        except Refused:  # thousands of streams: their names are what matters
            return Send(envelope.encode("capabilities", Capabilities(self._me.device_id, dict.fromkeys(streams))))


_TYPES = {"challenge", "hello_ack", "proxy_http", "paired", "suite_watch", "suite_restart", "error", *_SESSIONS}


def _too_large(text: str) -> list[Event]:
    """The answer to a request that is refused for its size alone."""
    if len(text) <= envelope.MAX_BYTES:
        return []
    try:
        frame = envelope.decode(text, limit=4 * MAX_MESSAGE)
    except Refused:
        return []
    return _unanswerable(frame, 413, f"a frame of {len(text)} characters is over the limit")


def _unanswerable(frame: Envelope, status: int, reason: str) -> list[Event]:
    if frame.type != "proxy_http":
        return []
    try:
        return [Unanswerable(msgspec.json.decode(frame.payload, type=_Rid).rid, status, reason)]
    except msgspec.DecodeError:
        return []


class Retry:
    """When to connect again. Told when a connection was taken, asked when one has ended."""

    def __init__(self, rng: Callable[[], float] = backoff.uniform, pace: Pace = PACE) -> None:
        self._rng, self._pace = rng, pace
        self._delays: Iterator[float] = backoff.delays(rng=rng)
        self._taken_at: float | None = None

    def taken(self, now: float) -> None:
        """hello_ack came."""
        self._taken_at = now

    def ended(self, end: End, now: float) -> float:
        """Seconds until the next attempt."""
        if self._taken_at is not None and now - self._taken_at >= self._pace.settled_s:
            self._delays = backoff.delays(rng=self._rng)
        self._taken_at = None
        wait_s = next(self._delays)
        if end.code == REPLACED:
            wait_s = max(wait_s, self._pace.replaced_s * (1 + self._rng()))
        if end.retry_after_s:  # spread, so that a fleet told the same does not come back together
            wait_s = max(wait_s, min(end.retry_after_s, RETRY_AFTER_CAP_S) * (1 + 0.2 * self._rng()))
        return wait_s
