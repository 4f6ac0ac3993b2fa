"""The leader: signals passed on between the hub and the children, a child for each session, their streams; and the
tunnel's peers (calls.py)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import uvloop
import zmq.asyncio

from procs import bus, line, log
from procs.errors import Refused
from procs.messages import encode
from procs.messages.watch import (
    Beat,
    Encoding,
    FromChild,
    FromSession,
    KeyframeWanted,
    PacketsWanted,
    RateWanted,
    Signal,
    Takes,
    Unit,
    decode_from_child,
)
from procs.webrtc_peer import go2rtc
from procs.webrtc_peer.encoders import Forks
from procs.webrtc_peer.feeds import Feeds
from procs.webrtc_peer.figures import Figures
from procs.webrtc_peer.options import STREAM, Peer
from procs.webrtc_peer.sessions import Action, Fork, Kill, Over, Sessions, Tell, Template
from procs.webrtc_peer.signalling import Signalling
from procs.webrtc_peer.wishes import Wishes
from procs.wire import envelope
from procs.wire.frames.watch import WatchRequest

if TYPE_CHECKING:
    from procs.webrtc_peer.calls import Calls

NAME = "webrtc_peer"
TICK_S = 0.1


class Alive(Protocol):
    """What life.run gives a process."""

    run_dir: Path

    def beat(self) -> None:
        """The main loop turns."""

    def serving(self) -> None:
        """The work is there to be had."""


class Brood(Forks, Protocol):
    """What brood.hatch gives a leader."""

    def watch(
        self, ready: Callable[[], None], born: Callable[[str, int], None], ended: Callable[[str, int], None]
    ) -> Coroutine[Any, Any, Any]:
        """Tell of all of them, for ever."""


def serve(settings: Peer, alive: Alive, brood: Brood) -> None:
    """Be the leader, for ever."""
    if settings.verbose:
        log.configure(NAME, debug=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Shell(settings, alive, brood).run())


class Shell:
    """Two sockets, the brood, and the streams."""

    def __init__(self, settings: Peer, alive: Alive, brood: Brood) -> None:
        self._settings, self._alive, self._brood = settings, alive, brood
        context, run_dir = zmq.asyncio.Context.instance(), alive.run_dir
        self._signalling = Signalling(context, run_dir, self._signalled)
        self._warden = bus.connector(context, zmq.PUSH, run_dir, bus.WARDEN_HEARTBEAT)
        self._figures = Figures()
        self._wishes = Wishes(context, run_dir)
        self._sessions = Sessions(Template(str(run_dir), settings.udp_range, settings.rtsp_at))
        self._first_stream = ""
        self._calls = _calls(settings, run_dir, brood)

    async def run(self) -> None:
        """All of it. Raises what ends us."""
        # Here, and not before: what is in it wants a running loop.
        self._line = line.binder(self._alive.run_dir, bus.WEBRTC_PEER_CHILDREN, self._heard)
        self._feeds = Feeds(self._line, str(self._alive.run_dir), self._settings, self._wishes, self._brood, self)
        works = (
            self._beat(),
            self._brood.watch(self._alive.serving, self._born, self._ended),
            self._signalling.announce(lambda: self._sessions.ids),
            self._signalling.hear(),
            self._tick(),
            self._feeds.tick(),
            self._feeds.watch(),
            self._wishes.keep_rates(),
            *([self._calls.run()] if self._calls else []),
        )
        doing = [self._line.broken, *(asyncio.ensure_future(work) for work in works)]
        done, _ = await asyncio.wait(doing, return_when="FIRST_COMPLETED")
        for task in done:
            task.result()

    async def _beat(self) -> None:
        while True:
            self._alive.beat()
            bus.send_one(self._warden, self._figures.told(os.getpid()))
            await asyncio.sleep(1.0)

    # Towards the hub

    async def _signalled(self, message: Signal, body: bytes) -> None:
        now = time.monotonic()
        if message.kind != "watch_request":
            self._act(self._sessions.signalled(message.kind, message.session_id, body, now))
            self._pass(message.session_id)
            return
        request = envelope.parse(envelope.of_payload(message.kind, body), WatchRequest)
        try:
            stream = _plain(request.stream) or self._settings.stream or await self._first()
        except Refused as reason:
            self._act(self._sessions.refused(request.session_id, str(reason)))
        else:
            self._act(self._sessions.asked(request, stream, time.monotonic()))

    async def _first(self) -> str:
        """The stream called camera, or go2rtc's first. Raises Refused."""
        if not self._first_stream:
            names = await go2rtc.streams(self._settings.go2rtc_http, self._settings.user)
            if not names:
                raise Refused("go2rtc has no streams")
            self._first_stream = go2rtc.preferred(names)
        return self._first_stream

    # What the feeds tell us

    def is_unknown(self, stream: str, why: str) -> None:
        """go2rtc has no such stream for us."""
        if stream == self._first_stream:
            self._first_stream = ""
        for session_id in self._sessions.ids:
            if self._sessions.stream_of(session_id) == stream:
                self._act(self._sessions.end(session_id, "error", why))

    def is_refused(self, session_id: str, why: str) -> None:
        """There is no picture for this session."""
        self._act(self._sessions.end(session_id, "error", why))

    # Towards the children

    def _heard(self, name: str, data: bytes, body: bytes) -> None:
        try:
            message = decode_from_child(data)
            self._said(name, message, body)
        except Refused as reason:
            log.warning("malformed bus message", reason=str(reason))

    def _said(self, name: str, message: FromChild, body: bytes) -> None:
        if isinstance(message, Unit):
            self._feeds.made(name, message, body)
            return
        speaker = message.encoder if isinstance(message, Encoding) else message.session_id
        if speaker != name:
            raise Refused(f"{name!r} speaks for {speaker!r}")
        if isinstance(message, Encoding):
            self._feeds.encoding(message)
        else:
            self._said_of_session(message, body)

    def _said_of_session(self, message: FromSession, body: bytes) -> None:
        session_id = message.session_id
        if not self._sessions.stream_of(session_id):
            return  # of one that is over
        if isinstance(message, Beat):
            self._beaten(message)
        elif isinstance(message, Signal):
            log.debug("frame of a child", kind=message.kind, session=session_id)
            self._act(self._sessions.answered(message.kind, session_id, body))
        elif isinstance(message, Takes):
            self._feeds.takes(session_id, message.codecs)
        elif isinstance(message, PacketsWanted):
            self._feeds.outlets.again(message)
        elif isinstance(message, KeyframeWanted):
            self._feeds.again(session_id)
        elif isinstance(message, RateWanted):
            self._feeds.rate(session_id, message.bits_per_s)

    def _beaten(self, beat: Beat) -> None:
        is_first = not self._sessions.has_beaten(beat.session_id)
        if not self._sessions.beaten(beat, time.monotonic()):
            return
        self._figures.take(self._sessions.stream_of(beat.session_id), beat, time.monotonic())
        if is_first:
            self._feeds.tell(beat.session_id)
        self._feeds.takes(beat.session_id, beat.takes)
        self._feeds.tell_sent(beat.session_id)
        self._pass(beat.session_id)

    def _pass(self, session_id: str) -> None:
        waiting = self._sessions.passes(session_id)
        while waiting:
            kind, body = waiting[0].kind, waiting[0].body
            if not self._line.say(Signal(0, kind, session_id), body, to=session_id):
                return
            waiting.popleft()

    def _born(self, child: str, pid: int) -> None:
        self._sessions.born(child, pid)
        if self._calls:
            self._calls.born(child, pid)

    def _ended(self, child: str, status: int) -> None:
        how = f"exit {status}" if status >= 0 else f"signal {-status}"
        self._act(self._sessions.gone(child, how))
        self._feeds.gone(child, how)
        if self._calls:
            self._calls.ended(child, how)

    # What the pure part has decided

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self._act(self._sessions.tick(now))
            self._feeds.look(now)
            for session_id in self._sessions.ids:
                self._pass(session_id)
            self._signalling.late(now)
            self._signalling.flush(now)

    def _act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Fork):
                log.info("session", session=action.spec.session_id, stream=action.spec.stream)
                self._brood.fork(action.child, encode(action.spec))
                self._feeds.open(action.spec.session_id, action.spec.stream)
            elif isinstance(action, Kill):
                self._brood.kill(action.child)
            elif isinstance(action, Tell):
                self._signalling.add(action.kind, action.session_id, action.body, time.monotonic())
            elif isinstance(action, Over):
                _log_end(action)
                self._figures.over(action.session_id)
                self._feeds.close(action.session_id)
        self._signalling.flush(time.monotonic())


def _calls(settings: Peer, run_dir: Path, brood: Brood) -> Calls | None:
    """Those to the tunnel's peers, if there are any."""
    if not settings.agent or not settings.tunnel:
        return None
    from procs.webrtc_peer.calls import Calls  # here: aiohttp is for nobody else, and costs a start a tenth of a second

    return Calls(settings.agent, settings.tunnel, run_dir, brood)


def _log_end(over: Over) -> None:
    beat = over.beat
    figures = {name: round(value, 3) for name, value in beat.stats.items()} if beat else {}
    path = beat.path if beat else ""
    log.info("session over", session=over.session_id, reason=over.reason, why=over.why, path=path, **figures)


def _plain(stream: str) -> str:
    """A viewer's word for a stream, which becomes a part of an address. Raises Refused for what could be more."""
    try:
        return str(STREAM.parse(stream)) if stream else ""
    except ValueError:
        raise Refused(f"a stream's name is {STREAM.allowed}") from None
