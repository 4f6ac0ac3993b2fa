"""A leader of webrtc_peer for tests of its children: real pulls, a real bus, children as processes; and a viewer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import zmq.asyncio
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.h264 import H264Decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp

from procs import bus
from procs.kinds import Address
from procs.media import sei
from procs.messages.watch import (
    Beat,
    KeyframeWanted,
    PacketsWanted,
    RateWanted,
    Signal,
    Source,
    Spec,
    Unit,
    decode_from_child,
)
from procs.webrtc_peer import fanout, pull
from procs.webrtc_peer.outlets import Outlets
from procs.webrtc_peer.rtsp_login import Server
from tests.nat import Place

LIMIT_S = 30.0  # for what a child does at once, on a busy machine
RUN_CHILD = (
    "import sys, msgspec; from procs import prctl; prctl.bind_to_parent(); from procs.messages.watch import Spec;"
    " from procs.webrtc_peer import child; child.live(msgspec.msgpack.decode(bytes.fromhex(sys.argv[1]), type=Spec))"
)


class Leader:
    """As much of one as its children need. `said` has what each session told its viewer, by its kind."""

    def __init__(self, run_dir: Path, rtsp: Address) -> None:
        self.run_dir = run_dir
        self.context = zmq.asyncio.Context()
        self.sock = bus.work_binder(self.context, run_dir, bus.WEBRTC_PEER_CHILDREN)
        self.pulls = pull.Pulls(Server(*rtsp), self._unit, self._state)
        self.fanout = fanout.Fanout()
        self.streams: dict[str, str] = {}
        self.outlets = Outlets(run_dir, self.streams.__contains__, self._joined, self._broken)
        self.said: defaultdict[tuple[str, str], asyncio.Queue[dict[str, Any]]] = defaultdict(asyncio.Queue)
        self.beats: dict[str, Beat] = {}
        self.children: dict[str, asyncio.subprocess.Process] = {}
        self.keyframes: Counter[str] = Counter()
        self.rates: dict[str, list[int]] = {}

    async def serve(self) -> None:
        while True:
            session, message, body = await bus.receive_work(self.sock)
            told = decode_from_child(message)
            if isinstance(told, Beat):
                if session not in self.beats:
                    self._tell_source(session)
                self.beats[session] = told
                self._tell_sent(session)
            elif isinstance(told, Signal):
                self.said[session, told.kind].put_nowait(json.loads(body))
            elif isinstance(told, PacketsWanted):
                self.outlets.again(told)
            elif isinstance(told, KeyframeWanted):
                self.keyframes[session] += 1
            elif isinstance(told, RateWanted):
                self.rates.setdefault(session, []).append(told.bits_per_s)

    async def start(self, session: str, stream: str, **more: Any) -> None:
        """Begin a session."""
        self.pulls.want(stream)
        self.streams[session] = stream
        fields = {"user_id": "u", "ice_servers": [], "udp_range": (40000, 50000), "lease_s": 5.0, **more}
        spec = Spec(session_id=session, stream=stream, run_dir=str(self.run_dir), **fields)
        self.children[session] = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUN_CHILD, msgspec.msgpack.encode(spec).hex()
        )

    async def tell(self, session: str, kind: Any, payload: dict[str, Any]) -> None:
        """A signal of the viewer to the child, as soon as it is there."""
        message = Signal(id=1, kind=kind, session_id=session)
        async with asyncio.timeout(LIMIT_S):
            while session not in self.beats:  # noqa: ASYNC110 - it is there only from its first beat on
                await asyncio.sleep(0.01)
        assert self._send(session, message, json.dumps({"session_id": session, **payload}).encode())

    async def hear(self, session: str, kind: str, within_s: float = LIMIT_S) -> dict[str, Any]:
        """The next of this kind that the child tells its viewer."""
        async with asyncio.timeout(within_s):
            return await self.said[session, kind].get()

    def _send(self, session: str, message: msgspec.Struct, body: bytes = b"") -> bool:
        return bus.send_work(self.sock, message, body, worker=session)

    def _joined(self, session: str) -> None:
        joined = self.fanout.join(session, self.streams[session], time.monotonic())
        for unit, data in joined.pieces:
            self.outlets.push(session, unit, data)
        self._tell_sent(session)

    def _broken(self, session: str, why: str) -> None:
        raise AssertionError(f"{session}: {why}")

    def _tell_sent(self, session: str) -> None:
        for sent in self.outlets.sent(session):
            self._send(session, sent)

    def _unit(self, stream: str, unit: Unit, data: bytes) -> None:
        for session in self.fanout.push(stream, unit, data):
            if not self.outlets.push(session, unit, data):
                self.fanout.missed(session)

    def _state(self, stream: str, state: pull.State) -> None:
        for session in self.beats:
            if self.streams[session] == stream:
                self._tell_source(session)

    def _tell_source(self, session: str) -> None:
        state = self.pulls.state(self.streams[session])
        self._send(session, Source(state=state.state, codecs=list(state.codecs), why=state.why))  # type: ignore[arg-type]


@asynccontextmanager
async def leader(run_dir: Path, rtsp: Address) -> AsyncIterator[Leader]:
    """A leader, and the end of its children."""
    found = Leader(run_dir, rtsp)
    serving = asyncio.ensure_future(found.serve())
    try:
        yield found
    finally:
        serving.cancel()
        for child in found.children.values():
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        for session in found.streams:
            found.outlets.close(session)
        asyncio.get_running_loop().remove_reader(found.outlets.sock)
        found.outlets.sock.close()
        found.context.destroy()


class Viewer:
    """aiortc as a viewer. `arrivals`: (monotonic ns, stamp) of each picture that came whole, before it is decoded."""

    def __init__(self, leader: Leader, session: str, stun: str = "", where: Place | None = None) -> None:
        self.leader, self.session, self._where = leader, session, where
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[RTCIceServer(stun)] if stun else []))
        self.arrivals: list[tuple[int, sei.Stamp | None]] = []
        self.pictures = self.sounds = 0
        self.candidates: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.pc.on("track", self._watch)

    async def watch(self, kinds: tuple[str, ...] = ("video",)) -> str:
        """Offer, take the answer and candidates; returns the answer's SDP."""
        for kind in kinds:
            self.pc.addTransceiver(kind, direction="recvonly")
        with self._where.entered() if self._where else nullcontext():  # its sockets are, and stay, there
            await self.pc.setLocalDescription(await self.pc.createOffer())
        described = {"type": "offer", "sdp": self.pc.localDescription.sdp}
        await self.leader.tell(self.session, "signal_offer", {"sdp": described})
        answer = (await self.leader.hear(self.session, "signal_answer"))["sdp"]
        await self.pc.setRemoteDescription(RTCSessionDescription(**answer))
        self._tasks.append(asyncio.ensure_future(self._trickle()))
        return str(answer["sdp"])

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.pc.close()

    async def _trickle(self) -> None:
        while True:
            payload = await self.leader.hear(self.session, "signal_ice", 600)
            if payload["candidate"]:
                text = payload["candidate"]["candidate"]
                self.candidates.append(text)
                candidate = candidate_from_sdp(text.removeprefix("candidate:"))
                candidate.sdpMid = payload["candidate"]["sdpMid"]
                await self.pc.addIceCandidate(candidate)
            else:
                self.candidates.append("")

    def _watch(self, track: Any) -> None:
        self._tasks.append(asyncio.ensure_future(self._count(track)))

    async def _count(self, track: Any) -> None:
        with suppress(MediaStreamError):  # its end
            while True:
                await track.recv()
                self.pictures += track.kind == "video"
                self.sounds += track.kind == "audio"


def note_arrivals(arrivals: list[tuple[int, sei.Stamp | None]]) -> None:
    """Have aiortc's decoder note each picture that comes, in this whole process."""
    decode = H264Decoder.decode

    def noting(self: H264Decoder, frame: JitterFrame) -> Any:
        arrivals.append((time.time_ns(), sei.read(frame.data)))
        return decode(self, frame)

    H264Decoder.decode = noting  # type: ignore[method-assign, assignment]


def is_there(pid: int) -> bool:
    """Whether a process is there."""
    return os.path.exists(f"/proc/{pid}")
