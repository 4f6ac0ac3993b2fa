"""Watch sessions: who has one, what is told to whom, and when one is over. Pure: what happened and the time go in,
what to do comes out. Each session is a lease: one in which nothing happens any more ends by itself."""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from typing import Literal, NamedTuple

from procs.messages.watch import Beat, Spec
from procs.unanswered import Kind
from procs.wire import envelope
from procs.wire.frames.watch import WatchEnded, WatchRequest
from procs.wire.webrtc import IceServer

MAX_SESSIONS = 64
MAX_HELD = 256  # frames for a child that does not take them, or is not there yet
OFFER_S = 30.0  # from watch_request to the viewer's offer
CONNECT_S = 20.0  # from the offer until media can flow; the same when that is lost again
VIEWER_SILENT_S = 10.0
BORN_S = 15.0  # from the fork to the first beat: at our own start the zygote has to import everything first
BEAT_S = 3.0  # without one the child is dead, or stands still
MAX_OVER = 512  # sessions that are over and still known as such

Reason = Literal["timeout", "error"]


class Fork(NamedTuple):
    """Have a child born for a session."""

    child: str
    spec: Spec


class Kill(NamedTuple):
    """End a child, whatever it does."""

    child: str


class Tell(NamedTuple):
    """A frame for the hub."""

    kind: Kind
    session_id: str
    body: bytes


class Pass(NamedTuple):
    """A frame for the child of a session."""

    session_id: str
    kind: Kind
    body: bytes


class Over(NamedTuple):
    """A session is over; for the log. `reason` "": the hub knows. `beat`: how it did last."""

    session_id: str
    reason: str
    why: str
    beat: Beat | None


Action = Fork | Kill | Tell | Over


class Template(NamedTuple):
    """What all specs have in common."""

    run_dir: str
    udp_range: tuple[int, int]
    rtsp: tuple[str, int, tuple[str, str] | None] = ("127.0.0.1", 8554, None)


class _Session:
    __slots__ = ("asked_at", "beat", "beat_at", "child", "held", "offered_at", "pid", "stream", "unconnected_at")

    def __init__(self, child: str, stream: str, now: float) -> None:
        self.child, self.stream = child, stream
        self.asked_at, self.offered_at = now, 0.0
        self.unconnected_at = now  # since when it is not connected, once there was an offer
        self.pid = 0
        self.beat: Beat | None = None
        self.beat_at = now
        self.held: deque[Pass] = deque()


class Sessions:
    """All of them. Times are seconds of CLOCK_MONOTONIC."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._sessions: dict[str, _Session] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._numbers = itertools.count(1)

    @property
    def ids(self) -> list[str]:
        """Every session."""
        return list(self._sessions)

    def stream_of(self, session_id: str) -> str:
        """What it shows; "" when there is no such session."""
        session = self._sessions.get(session_id)
        return session.stream if session else ""

    # From the hub

    def asked(self, request: WatchRequest, stream: str, now: float) -> list[Action]:
        """Somebody wants to watch."""
        session_id = request.session_id
        if session_id in self._sessions:
            return []  # it was said twice
        if len(self._sessions) >= MAX_SESSIONS:
            return [_ended(session_id, "error", f"there are {MAX_SESSIONS} sessions already")]
        child = f"{next(self._numbers)}"  # not the session's id, which may come again while its child is dying
        self._over.pop(session_id, None)
        self._sessions[session_id] = _Session(child, stream, now)
        servers = [_plain(server) for server in request.ice_servers]
        spec = Spec(session_id, request.user_id, stream, servers, *self._template[:2], OFFER_S, self._template.rtsp)
        return [Fork(child, spec)]

    def signalled(self, kind: Kind, session_id: str, body: bytes, now: float) -> list[Action]:
        """A later frame of a session."""
        session = self._sessions.get(session_id)
        if kind == "watch_ended":
            return self.end(session_id, "", "the hub ended it") if session else []
        if not session:
            if session_id in self._over or kind != "signal_offer":
                return []  # the hub has been told, or will be on the next offer
            return [_ended(session_id, "error", "no such session")]
        if kind == "signal_offer" and not session.offered_at:
            session.offered_at = session.unconnected_at = now
        if len(session.held) < MAX_HELD:
            session.held.append(Pass(session_id, kind, body))
        return []

    def passes(self, session_id: str) -> deque[Pass]:
        """What its child is to be told, in this order; to be taken from the front as it goes out."""
        session = self._sessions.get(session_id)
        return session.held if session and session.beat else deque()

    def refused(self, session_id: str, why: str) -> list[Action]:
        """There can't be one."""
        return [] if session_id in self._sessions else [_ended(session_id, "error", why)]

    # From below

    def has_beaten(self, session_id: str) -> bool:
        """Whether its child has said anything yet."""
        session = self._sessions.get(session_id)
        return bool(session and session.beat)

    def born(self, child: str, pid: int) -> None:
        """A child is there."""
        if found := self._of_child(child):
            found[1].pid = pid

    def gone(self, child: str, how: str) -> list[Action]:
        """A child has ended. If we did it, or it had said why, its session is over already."""
        found = self._of_child(child)
        return self.end(found[0], "error", f"what had the session on the device has died: {how}") if found else []

    def beaten(self, beat: Beat, now: float) -> bool:
        """A child says how it does. False when it is none of ours."""
        session = self._sessions.get(beat.session_id)
        if not session or session.pid not in (0, beat.pid):
            return False
        if beat.state == "connected":
            session.unconnected_at = now
        session.beat, session.beat_at = beat, now
        return True

    def answered(self, kind: Kind, session_id: str, body: bytes) -> list[Action]:
        """A child's frame for the hub; its watch_ended is the end of it."""
        if session_id not in self._sessions:
            return []
        if kind == "watch_ended":
            return [*self.end(session_id, "", "its child ended it"), Tell(kind, session_id, body)]
        return [Tell(kind, session_id, body)]

    def end(self, session_id: str, reason: Reason | Literal[""], why: str) -> list[Action]:
        """End one, and say so to the hub if there is a reason."""
        session = self._sessions.pop(session_id, None)
        if not session:
            return []
        self._over[session_id] = None
        if len(self._over) > MAX_OVER:
            self._over.popitem(last=False)
        told: list[Action] = [_ended(session_id, reason, why)] if reason else []
        return [*told, Kill(session.child), Over(session_id, reason, why, session.beat)]

    def tick(self, now: float) -> list[Action]:
        """What has become late."""
        found: list[Action] = []
        for session_id, session in list(self._sessions.items()):
            if late := _late(session, now):
                found += self.end(session_id, *late)
        return found

    def _of_child(self, child: str) -> tuple[str, _Session] | None:
        return next((each for each in self._sessions.items() if each[1].child == child), None)


def _late(session: _Session, now: float) -> tuple[Reason, str] | None:
    """Why it is to end now, if it is."""
    beat = session.beat
    if now - session.beat_at > (BEAT_S if beat else BORN_S):
        return "error", "what had the session on the device stands still" if beat else "the device is too slow"
    if not session.offered_at:
        return ("timeout", f"no offer within {OFFER_S:g} s") if now - session.asked_at > OFFER_S else None
    if now - session.unconnected_at > CONNECT_S:
        return "timeout", f"not connected within {CONNECT_S:g} s"
    if beat and beat.state == "connected" and beat.silent_s > VIEWER_SILENT_S:
        return "timeout", f"nothing from the viewer for {VIEWER_SILENT_S:g} s"
    return None


def _ended(session_id: str, reason: Reason, why: str) -> Tell:
    return Tell("watch_ended", session_id, envelope.payload(WatchEnded(session_id, reason, why)))


def _plain(server: IceServer) -> dict[str, object]:
    """As a browser has it."""
    urls = [server.urls] if isinstance(server.urls, str) else server.urls
    more = {"username": server.username, "credential": server.credential}
    return {"urls": urls, **{name: value for name, value in more.items() if value is not None}}
