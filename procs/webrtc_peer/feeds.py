"""Streams to children: each is pulled once while somebody watches it, and goes to all who do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from procs.errors import Refused
from procs.line import Line
from procs.messages import Source, Unit, encode
from procs.settings import Address
from procs.webrtc_peer.fanout import Fanout, Piece
from procs.webrtc_peer.pull import Pulls, State
from procs.webrtc_peer.wishes import Wishes

TICK_S = 0.03


class Feeds:
    """Of all sessions. `on_unknown` hears of a stream that go2rtc does not have, and of why."""

    def __init__(self, line: Line, rtsp: Address, wishes: Wishes, on_unknown: Callable[[str, str], None]) -> None:
        self._line, self._wishes, self._on_unknown = line, wishes, on_unknown
        self._pulls = Pulls(rtsp, self._on_unit, self._on_state)
        self._fanout = Fanout()
        self._streams: dict[str, str] = {}  # session -> what it shows
        self._joined: set[str] = set()
        self._too_late = asyncio.Event()  # somebody waits for a keyframe that may not come

    def open(self, session_id: str, stream: str) -> None:
        """A session begins: its stream is pulled from now on."""
        self._streams[session_id] = stream
        self._pulls.want(stream)

    def close(self, session_id: str) -> None:
        """A session is over."""
        stream = self._streams.pop(session_id, "")
        self._joined.discard(session_id)
        self._fanout.leave(session_id)
        self._wishes.left(stream, session_id)
        if stream and stream not in self._streams.values():
            self._pulls.unwant(stream)

    def tell(self, session_id: str) -> None:
        """Say to a child how its stream is."""
        if session_id in self._streams:
            self._say(session_id, self._pulls.state(self._streams[session_id]))

    def join(self, session_id: str) -> None:
        """A child can send from now on."""
        if session_id in self._joined or session_id not in self._streams:
            return
        self._joined.add(session_id)
        stream = self._streams[session_id]
        can_ask = self._wishes.can_ask(stream)
        joined = self._fanout.join(session_id, stream, time.monotonic(), can_ask=can_ask)
        if joined.ask_keyframe:
            self._wishes.keyframe(stream)
            self._too_late.set()
        self._send_all(session_id, joined.pieces)

    def again(self, session_id: str) -> None:
        """A child's viewer lost the picture: have its source make a keyframe, or send what is known once more."""
        stream = self._streams.get(session_id, "")
        if self._wishes.can_ask(stream):
            self._wishes.keyframe(stream)
        elif stream:
            self._send_all(session_id, self._fanout.again(session_id, time.monotonic()))

    async def watch(self) -> NoReturn:
        """Raise what ends us."""
        await self._pulls.watch()

    async def tick(self) -> None:
        """Give those their cache whose keyframe did not come, for ever."""
        while True:
            await self._too_late.wait()
            self._too_late.clear()
            while self._fanout.waiting:
                await asyncio.sleep(TICK_S)
                for session_id, pieces in self._fanout.due(time.monotonic()):
                    self._send_all(session_id, pieces)

    def _on_unit(self, stream: str, unit: Unit, data: bytes) -> None:
        message = encode(unit)  # once for all
        for session_id in self._fanout.push(stream, unit, data):
            self._send(session_id, message, data)

    def _send_all(self, session_id: str, pieces: Iterable[Piece]) -> None:
        for unit, data in pieces:
            if not self._send(session_id, encode(unit), data):
                return

    def _send(self, session_id: str, message: bytes, data: bytes) -> bool:
        try:
            if self._line.send(message, data, to=session_id):
                return True
        except Refused:  # a picture larger than the bus takes: as good as lost
            pass
        self._fanout.missed(session_id)
        return False

    def _on_state(self, stream: str, state: State) -> None:
        if state.state == "starting":
            self._fanout.forget(stream)
        if state.is_unknown:
            self._on_unknown(stream, state.why)
        for session_id in [each for each, shown in self._streams.items() if shown == stream]:
            self._say(session_id, state)

    def _say(self, session_id: str, state: State) -> None:
        source = Source(state=state.state, codecs=list(state.codecs), why=state.why[:500])  # type: ignore[arg-type]
        self._line.say(source, to=session_id)
