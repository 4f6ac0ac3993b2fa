"""One session's process: the viewer's signalling, the way to it and its feedback, and a beat. It lives as long as the
session.

Forked from the zygote (procs/brood.py), which has imported this module. It ends by itself when its viewer goes, stays
silent or never comes; whatever else ends it, the leader tells the viewer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, NoReturn, cast

import uvloop

from procs import bus, line, log
from procs.errors import PlanariaError, Refused
from procs.messages.watch import (
    Beat,
    KeyframeWanted,
    PacketsWanted,
    RateWanted,
    Sent,
    Signal,
    Source,
    Spec,
    Takes,
    decode_to_child,
)
from procs.webrtc_peer.handover import Handover
from procs.webrtc_peer.mouth import Mouth, Piece
from procs.webrtc_peer.peer import Json, Peer
from procs.webrtc_peer.rtsp_login import Server, User

BEAT_S = 1.0
LOOK_S = 0.25
SOURCE_WAIT_S = 0.5  # for the stream's codecs to be known; of one that starts slower the sound is Opus
CONNECT_S = 20.0
SILENT_S = 10.0
MISSING_S = 5.0  # to watch again takes a second or two
KEYFRAME_EVERY_S = 0.5  # a viewer that has lost its picture says so many times a second
FAREWELL_S = 0.5  # for the last words to leave


def live(spec: Spec) -> NoReturn:
    """Be the session of this spec until it is over."""
    code = 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_live(spec))
        code = 0
    except PlanariaError as error:
        log.error(str(error), session=spec.session_id)
        code = error.exit_code
    except Exception as error:  # a crash is an exit, and the leader tells the viewer
        log.error(f"unforeseen {type(error).__name__}: {error}", trace=True, session=spec.session_id)
    os._exit(code)


async def _live(spec: Spec) -> None:
    await Session(spec).run()


class Over(Exception):
    """The session is over: a reason of `watch_ended`, and why in words; "" if nobody has to be told."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason, self.why = reason, why


class Session:
    """What one child does."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._line = line.connector(Path(spec.run_dir), bus.WEBRTC_PEER_CHILDREN, spec.session_id, self._take)
        self._handover = Handover(Path(spec.run_dir), spec.session_id, self._packets)
        self._peer = Peer(
            spec.ice_servers, spec.udp_range, self._handover, self._signal, self._keyframe, self._rate, self._hear
        )
        self._peer.on_state(self._state_changed)
        self._source = Source(state="starting")
        self._mouth: Mouth | None = None
        self._source_known = asyncio.Event()
        self._offers: asyncio.Queue[str] = asyncio.Queue(4)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._was_connected = False
        self._asked_at = float("-inf")
        self._offered_at: float | None = None
        self._born_at = time.monotonic()

    async def run(self) -> None:
        """Until it is over."""
        await self._line.connected(CONNECT_S)
        work = [asyncio.ensure_future(each) for each in (self._answer(), self._beat(), self._look())]
        done, _ = await asyncio.wait([self._over, self._line.broken, *work], return_when=asyncio.FIRST_COMPLETED)
        try:
            await done.pop()
        except Over as over:
            log.info("session over", session=self._spec.session_id, reason=over.reason, why=over.why)
            if over.reason:
                self._signal("watch_ended", {"reason": over.reason, "why": over.why})
            with contextlib.suppress(Exception):  # a courtesy to the viewer and the TURN server
                async with asyncio.timeout(FAREWELL_S):
                    await self._peer.close()
                    await asyncio.sleep(0.1)  # what was said must leave through ZeroMQ's own thread

    def _take(self, _: str, message: bytes, body: bytes) -> None:
        try:
            told = decode_to_child(message)
            if isinstance(told, Sent):
                self._peer.sent(told)
            elif isinstance(told, Source):
                self._source = told
                if told.codecs:
                    self._source_known.set()
            else:
                self._signalled(told.kind, _payload(body))
        except Refused as reason:
            raise Over("error", str(reason)) from None

    def _signalled(self, kind: str, payload: Json) -> None:
        if kind == "signal_offer":
            self._offered_at = self._offered_at or time.monotonic()
            with contextlib.suppress(asyncio.QueueFull):  # it is the same one again, or one too many
                self._offers.put_nowait(_sdp(payload))
        elif kind == "signal_ice":
            candidate = payload.get("candidate")
            self._peer.add_candidate(candidate if isinstance(candidate, dict) else None)
        elif kind == "watch_ended":
            raise Over("", "the leader says so")

    async def _answer(self) -> None:
        """Answer offers, beside reading: an answer has to know what the stream has."""
        while True:
            sdp = await self._offers.get()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SOURCE_WAIT_S):
                    await self._source_known.wait()
            names = [each.partition("/") for each in self._source.codecs]
            profile = next((rest for name, _, rest in names if name == "h264"), "")
            try:
                await self._peer.answer(sdp, [name for name, _, _ in names], profile, self._source.hears)
            except Refused as reason:
                raise Over("error", str(reason)) from None
            self._say(Takes(self._spec.session_id, self._peer.takes))

    async def _beat(self) -> None:
        while True:
            self._handover.look()
            self._say(
                Beat(
                    session_id=self._spec.session_id,
                    pid=os.getpid(),
                    state=cast(Any, self._peer.state if self._peer.state in ("new", "connected") else "connecting"),
                    takes=self._peer.takes,
                    path=cast(Any, self._peer.path),
                    silent_s=self._peer.silent_s if self._peer.state == "connected" else 0.0,
                    stats=await self._peer.stats(),
                )
            )
            await asyncio.sleep(BEAT_S)

    async def _look(self) -> None:
        """End it when its time is up."""
        while True:
            # Seldom while all is well: to wake up costs more than to look.
            await asyncio.sleep(BEAT_S if self._peer.state == "connected" else LOOK_S)
            now = time.monotonic()
            if self._offered_at is None:
                if now - self._born_at > self._spec.lease_s:
                    raise Over("timeout", f"no offer came within {self._spec.lease_s:g} s")
            elif self._peer.state == "connected":
                if self._peer.silent_s > SILENT_S:
                    raise Over("timeout", f"nothing came from the viewer for {SILENT_S:g} s")
                if self._peer.missing_s > MISSING_S:
                    raise Over("timeout", f"nothing has arrived at the viewer for {MISSING_S:g} s, as it says")
            elif now - self._offered_at > CONNECT_S:
                raise Over("timeout", f"no connection within {CONNECT_S:g} s of the offer")

    def _state_changed(self) -> None:
        state = self._peer.state
        if state == "connected":
            self._was_connected = True
        elif state in ("failed", "closed") and not self._over.done():
            over = Over("viewer_disconnected", "the viewer has gone") if self._was_connected else None
            self._over.set_exception(over or Over("error", "ICE or DTLS failed"))

    def _signal(self, kind: str, payload: Json) -> None:
        body = json.dumps({"session_id": self._spec.session_id, **payload}).encode()
        self._say(Signal(id=0, kind=cast(Any, kind), session_id=self._spec.session_id), body)

    def _keyframe(self) -> None:
        now = time.monotonic()
        if now - self._asked_at >= KEYFRAME_EVERY_S:
            self._asked_at = now
            self._say(KeyframeWanted(session_id=self._spec.session_id))

    def _packets(self, wanted: PacketsWanted) -> None:
        self._say(wanted)

    def _rate(self, bits_per_s: int) -> None:
        self._say(RateWanted(session_id=self._spec.session_id, bits_per_s=bits_per_s))

    def _hear(self, piece: Piece) -> None:
        """The viewer talks, as the answer has allowed it."""
        if self._mouth is None:
            self._mouth = Mouth(_server(*self._spec.rtsp), self._spec.stream, self._peer.voice)
        self._mouth.push(piece)

    def _say(self, message: Any, body: bytes = b"") -> None:
        if not self._line.say(message, body):
            log.warning("the leader takes nothing", message=type(message).__name__, session=self._spec.session_id)


def _server(host: str, port: int, user: tuple[str, str] | None) -> Server:
    return Server(host, port, User(*user) if user else None)


def _payload(body: bytes) -> Json:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Refused(f"a payload that is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused("a payload that is no object")
    return found


def _sdp(payload: Json) -> str:
    described = payload.get("sdp")
    text = described.get("sdp") if isinstance(described, dict) else described
    if not isinstance(text, str):
        raise Refused("the offer has no SDP")
    return text
