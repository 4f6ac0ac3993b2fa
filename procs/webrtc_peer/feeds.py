"""Streams to children: each is pulled once while somebody watches it, and goes to all who do. What some of them can't
take is made for them, once."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, Protocol

from procs import log
from procs.errors import Refused
from procs.line import Line
from procs.messages.requests import Bitrate, Keyframe
from procs.messages.watch import Encoding, Source, Unit
from procs.webrtc_peer import codecs, go2rtc
from procs.webrtc_peer.encoders import Encoder, Encoders, Forks
from procs.webrtc_peer.fanout import Fanout, Piece
from procs.webrtc_peer.options import Peer
from procs.webrtc_peer.outlets import Outlets
from procs.webrtc_peer.pull import Pulls, State
from procs.webrtc_peer.wishes import Wishes

TICK_S = 0.03


class Leader(Protocol):
    """Who has the children."""

    def is_unknown(self, stream: str, why: str) -> None:
        """go2rtc has no such stream for us."""

    def is_refused(self, session_id: str, why: str) -> None:
        """There is no picture for this session."""


class Feeds:
    """Of all sessions. In the fan-out, a stream's pictures go by its name; those made of it by `_made_key` of that."""

    def __init__(self, line: Line, run_dir: str, settings: Peer, wishes: Wishes, brood: Forks, leader: Leader) -> None:
        self._line, self._wishes, self._leader = line, wishes, leader
        self._streams: dict[str, str] = {}  # session -> what it shows
        hears = functools.partial(go2rtc.hears, settings.go2rtc_http, settings.user)
        self._pulls = Pulls(settings.rtsp_at, self._on_unit, self._on_state, hears)
        self._fanout = Fanout()
        self.outlets = Outlets(Path(run_dir), self._streams.__contains__, self.join, leader.is_refused)
        self._encoders = Encoders(run_dir, brood, self._is_ready, self._is_gone)
        self._takes: dict[str, set[str]] = {}  # session or encoder -> codecs; all until it is known
        self._rates: dict[str, int] = {}  # of sessions whose pictures are made
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
        self._takes.pop(session_id, None)
        self._rates.pop(session_id, None)
        self._fanout.leave(session_id)
        self.outlets.close(session_id)
        self._encoders.left(session_id)
        self._wishes.left(stream, session_id)
        if stream and stream not in self._streams.values():
            self._pulls.unwant(stream)

    def tell(self, session_id: str) -> None:
        """Say to a child how its stream is."""
        if session_id in self._streams:
            self._say(session_id, self._pulls.state(self._streams[session_id]))

    def takes(self, session_id: str, named: Iterable[str]) -> None:
        """A child has promised its viewer these codecs."""
        takes = codecs.KINDS.keys() & set(named)
        if session_id in self._streams and takes and self._takes.get(session_id) != takes:
            self._takes[session_id] = takes
            self._encode_for(session_id)

    def tell_sent(self, session_id: str) -> None:
        """Say to a child what its viewer has been sent."""
        for sent in self.outlets.sent(session_id):
            self._line.say(sent, to=session_id)

    def join(self, session_id: str) -> None:
        """There is a way to a session's viewer from now on."""
        if session_id not in self._joined:
            self._joined.add(session_id)
            self._begin(session_id)
        self.tell_sent(session_id)

    def _begin(self, session_id: str) -> None:
        stream = self._streams[session_id]
        key, is_made = (_made_key(stream), True) if self._is_made(session_id) else (stream, False)
        can_ask = is_made or self._wishes.can_ask(stream)
        joined = self._fanout.join(session_id, key, time.monotonic(), can_ask=can_ask)
        if joined.ask_keyframe:
            self._ask_keyframe(session_id)
            self._too_late.set()
        self._send_all(session_id, joined.pieces)

    def again(self, session_id: str) -> None:
        """A child's viewer lost the picture: have its source make a keyframe, or send what is known once more."""
        stream = self._streams.get(session_id, "")
        if self._is_made(session_id) or self._wishes.can_ask(stream):
            self._ask_keyframe(session_id)
        elif stream:
            self._send_all(session_id, self._fanout.again(session_id, time.monotonic()))

    def rate(self, session_id: str, bits_per_s: int) -> None:
        """A child's viewer can take so much."""
        stream = self._streams.get(session_id, "")
        if self._is_made(session_id):
            self._rates[session_id] = bits_per_s
            self._tell_rate(self._encoders.of(stream, "vp8"))
        elif stream:
            self._wishes.rate(stream, session_id, bits_per_s)

    # Encoders

    def encoding(self, message: Encoding) -> None:
        """An encoder says that it is well."""
        self._encoders.heard(message, time.monotonic())

    def made(self, name: str, unit: Unit, data: bytes) -> None:
        """What an encoder has made. Raises Refused for what it was not asked for."""
        encoder = self._encoders.named(name)
        if not encoder:
            return  # it was not needed any more
        if unit.codec != encoder.codec:
            raise Refused(f"{name} makes {encoder.codec}, and sends {unit.codec}")
        self._push(encoder.stream, unit, data, is_made=True)

    def gone(self, child: str, how: str) -> None:
        """A child has ended, which may be an encoder."""
        self._encoders.gone(child, how, time.monotonic())

    def look(self, now: float) -> None:
        """Do what is due."""
        self._encoders.tick(now)

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

    def _encode_for(self, session_id: str) -> None:
        stream, takes = self._streams[session_id], self._takes.get(session_id)
        has = codecs.names(self._pulls.state(stream).codecs)
        if not takes or not has:
            return
        for codec in self._encoders.needs(session_id, stream, codecs.to_make(has, takes), time.monotonic()):
            why = f"this device encodes as many streams as it may already, and its {codec.upper()} is one too many"
            log.warning("no encoder", session=session_id, stream=stream, codec=codec)
            if codecs.KINDS[codec] == "video":
                self._leader.is_refused(session_id, why)

    def _is_ready(self, encoder: Encoder) -> None:
        self._takes[encoder.name] = codecs.sources_of(encoder.codec)
        is_picture = codecs.KINDS[encoder.codec] == "video"
        can_ask = is_picture and self._wishes.can_ask(encoder.stream)
        joined = self._fanout.join(encoder.name, encoder.stream, time.monotonic(), can_ask=can_ask)
        if joined.ask_keyframe:
            self._wishes.keyframe(encoder.stream)
            self._too_late.set()
        self._send_all(encoder.name, joined.pieces)
        self._tell_rate(encoder)

    def _is_gone(self, encoder: Encoder) -> None:
        self._fanout.leave(encoder.name)
        self._takes.pop(encoder.name, None)

    def _tell_rate(self, encoder: Encoder | None) -> None:
        rates = [self._rates[user] for user in encoder.users if user in self._rates] if encoder else []
        if encoder and rates:
            self._line.say(Bitrate(min(rates)), to=encoder.name)

    def _ask_keyframe(self, session_id: str) -> None:
        stream = self._streams[session_id]
        if not self._is_made(session_id):
            self._wishes.keyframe(stream)
        elif (encoder := self._encoders.of(stream, "vp8")) and encoder.has_begun:
            self._line.say(Keyframe(), to=encoder.name)

    def _is_made(self, session_id: str) -> bool:
        return "vp8" in self._takes.get(session_id, ())

    # Units

    def _on_unit(self, stream: str, unit: Unit, data: bytes) -> None:
        self._push(stream, unit, data, is_made=False)

    def _push(self, stream: str, unit: Unit, data: bytes, *, is_made: bool) -> None:
        made = _made_key(stream)
        keys = [made if is_made else stream] if unit.kind == "video" else [stream, made]
        for to in [to for key in keys for to in self._fanout.push(key, unit, data)]:
            if to not in self._takes or unit.codec in self._takes[to]:
                self._send(to, unit, data)

    def _send_all(self, to: str, pieces: Iterable[Piece]) -> None:
        takes = self._takes.get(to)
        for unit, data in pieces:
            if (takes is None or unit.codec in takes) and not self._send(to, unit, data):
                return

    def _send(self, to: str, unit: Unit, data: bytes) -> bool:
        """To a session's viewer, or an encoder."""
        try:
            if self.outlets.push(to, unit, data) if to in self._streams else self._line.say(unit, data, to=to):
                return True
        except Refused:  # a picture larger than the bus takes: as good as lost
            pass
        self._fanout.missed(to)
        return False

    def _on_state(self, stream: str, state: State) -> None:
        if state.state == "starting":
            self._fanout.forget(stream)
            self._fanout.forget(_made_key(stream))
        if state.is_unknown:
            self._leader.is_unknown(stream, state.why)
        for session_id in [each for each, shown in self._streams.items() if shown == stream]:
            self._say(session_id, state)
            self._encode_for(session_id)

    def _say(self, session_id: str, state: State) -> None:
        source = Source(state.state, list(state.codecs), state.why[:500], state.hears)  # type: ignore[arg-type]
        self._line.say(source, to=session_id)


def _made_key(stream: str) -> str:
    return f"{stream} made"  # no stream has such a name
