"""Our side of ws_link.sessions: frames of watch sessions, from the hub to webrtc_peer and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import zmq.asyncio

from procs import bus, log
from procs.errors import Refused
from procs.messages.watch import SessionsReady, Signal, SignalTaken, decode_from_peer
from procs.unanswered import Seen
from procs.ws_link.link import Session, Signalled
from procs.ws_link.sessions import Ended, Sessions, frame
from procs.ws_link.state import State
from procs.ws_link.uplink import Uplink

PEER = "webrtc_peer"
TICK_S = 0.1


class Watching:
    """Bound for as long as the process lives."""

    def __init__(self, context: zmq.asyncio.Context, run_dir: Path, uplink: Uplink, state: State) -> None:
        self._sock = bus.work_binder(context, run_dir, bus.WS_LINK_SESSIONS)
        self._uplink, self._state = uplink, state
        self._sessions = Sessions(time.monotonic())
        self._written = Seen()  # signals of webrtc_peer that are through
        self._connection: Session | None = None
        self._writing: set[int] = set()  # those that wait to be written to it

    def signalled(self, event: Signalled, now: float) -> None:
        """The hub has sent a frame of a session."""
        self._end(self._sessions.from_hub(event.kind, event.session_id, event.body, now))
        self._flush(now)

    async def hear(self) -> None:
        """Hear webrtc_peer, for ever."""
        while True:
            who, data, body = await bus.receive_work(self._sock)
            try:
                if who != PEER:
                    raise Refused(f"{who!r} is not {PEER}")
                message = decode_from_peer(data)
                if isinstance(message, Signal):
                    self._hand_on(message, body)
                elif isinstance(message, SignalTaken):
                    self._sessions.taken(message.id)
                else:
                    self._ready(message)
            except Refused as reason:
                self._state.note("malformed bus message", str(reason))

    async def tick(self) -> None:
        """Send again, and notice what is late, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            # What is sent to one that has died fails at once: a viewer need not wait for the next one to be told.
            if self._sessions.has_any and not bus.send_work(self._sock, SignalTaken(0), worker=PEER):
                self._end(self._sessions.gone())
            self._end(self._sessions.tick(now))
            self._flush(now)
            self._state.sessions = self._sessions.count(now)

    def _ready(self, message: SessionsReady) -> None:
        now = time.monotonic()
        is_other = self._sessions.is_other(message)
        self._end(self._sessions.ready(message, now))
        self._flush(now, all_of_them=is_other)

    def _flush(self, now: float, *, all_of_them: bool = False) -> None:
        for sent in self._sessions.due(now, all_of_them=all_of_them):
            if not bus.send_work(self._sock, sent.signal, sent.body, worker=PEER):
                return

    def _hand_on(self, signal: Signal, body: bytes) -> None:
        """To the hub, where there is one: else webrtc_peer sends it again. What can't ever be sent is taken, too."""
        if self._connection is not self._uplink.session:  # what waited for the one before is lost with it
            self._connection = self._uplink.session
            self._writing.clear()
        if self._written.has(signal.id):
            self._take(signal)
        elif self._uplink.is_connected and signal.id not in self._writing:
            try:
                text = frame(signal, body)
            except Refused:
                self._take(signal)
                raise
            self._writing.add(signal.id)
            if signal.kind == "watch_ended":
                self._sessions.over(signal.session_id)
            self._uplink.send(text, lambda: self._take(signal))

    def _take(self, signal: Signal) -> None:
        self._writing.discard(signal.id)
        self._written.is_new(signal.id)
        bus.send_work(self._sock, SignalTaken(signal.id), worker=PEER)

    def _end(self, sessions: Iterable[Ended]) -> None:
        for ended in sessions:
            self._state.note("watch session", ended.why)
            log.debug("a watch session is over", session=ended.session_id, why=ended.why)
            if self._uplink.is_connected:  # else the hub has ended it itself, or will when nothing comes
                self._uplink.send(ended.text())
