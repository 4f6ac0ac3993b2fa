"""A viewer written from the published protocol alone: aiortc, websockets, JSON. Of ours it knows only the barcode.

As a program it watches until it has seen enough, prints one JSON object (`Report`) and ends; so it can be put into a
network namespace, frozen or killed. Its offer carries no candidates: they follow one by one, as browsers send them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp
from websockets.asyncio.client import ClientConnection, connect

from procs.errors import Refused
from tests.decoding import code_of

BEAT_S = 15.0


@dataclass
class Report:
    """What came of it. `pictures`: (arrived, us since the Unix epoch; frame; made, us), of each that had a barcode."""

    session_id: str = ""
    error: str = ""  # what the hub said instead of watch_ready
    ended: str = ""  # the reason in watch_ended
    why: str = ""  # the same in words, if the other side says it
    path: str = ""  # direct or relayed
    answered_s: float = 0.0  # from watch_request
    connected_s: float = 0.0
    first_picture_s: float = 0.0
    sound: int = 0  # frames
    pictures: list[tuple[int, int, int]] = field(default_factory=list)


def frame_of(kind: str, payload: object, **more: object) -> str:
    """A message on the wire."""
    return json.dumps({"type": kind, "ts": "2026-01-01T12:00:00.000000", "payload": payload, **more})


def configuration(ice_servers: Sequence[dict[str, Any]]) -> RTCConfiguration:
    """What the hub said of STUN and TURN, for aiortc."""
    servers = [RTCIceServer(each["urls"], each.get("username"), each.get("credential")) for each in ice_servers]
    return RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)


def path_of(pc: RTCPeerConnection) -> str:
    """`direct` or `relayed`, by the pair in use; aiortc tells it nowhere."""
    for transceiver in pc.getTransceivers():
        connection = transceiver.receiver.transport.transport._connection
        for pair in connection._nominated.values():
            kinds = {pair.local_candidate.type, pair.remote_candidate.type}
            return "relayed" if "relay" in kinds else "direct"
    return ""


class Viewer:
    """One session of one viewer. `stream` is not in the published protocol; others pass it over."""

    def __init__(self, ws: ClientConnection, *, sound: bool = False) -> None:
        self.report = Report()
        self.over = asyncio.Event()
        self._ws, self._sound = ws, sound
        self._pc: RTCPeerConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_s = 0.0

    async def watch(self, device_id: str, stream: str = "") -> None:
        """Ask for a session and offer; what comes of it goes into the report."""
        self._start(self._beat())
        self._asked_s = time.monotonic()
        await self._say("watch_request", {"device_id": device_id} | ({"stream": stream} if stream else {}))
        async for text in self._ws:
            message = json.loads(text)
            if await self._take(message["type"], message["payload"]):
                break
        self.over.set()

    async def leave(self) -> None:
        """As somebody does who has seen enough."""
        await self._say("end_watch", {"session_id": self.report.session_id})
        if self._pc:
            await self._pc.close()

    async def _take(self, kind: str, payload: dict[str, Any]) -> bool:
        """Whether it is over."""
        match kind:
            case "watch_ready":
                self.report.session_id = payload["session_id"]
                self._start(self._offer(payload["ice_servers"]))
            case "signal_answer" if self._pc:
                self.report.answered_s = self._since()
                await self._pc.setRemoteDescription(RTCSessionDescription(payload["sdp"]["sdp"], "answer"))
            case "signal_ice" if self._pc:
                await self._candidate(payload["candidate"])
            case "error":
                self.report.error = payload["message"]
                return not self.report.session_id
            case "watch_ended" if payload["session_id"] == self.report.session_id:
                self.report.ended, self.report.why = payload["reason"], payload.get("why", "")
                return True
        return False

    async def _offer(self, ice_servers: Sequence[dict[str, Any]]) -> None:
        pc = self._pc = RTCPeerConnection(configuration(ice_servers))
        pc.on("track", self._seen)
        pc.on("connectionstatechange", self._changed)
        pc.addTransceiver("video", "recvonly")
        if self._sound:
            pc.addTransceiver("audio", "recvonly")
        await pc.setLocalDescription(await pc.createOffer())
        lines = pc.localDescription.sdp.splitlines(keepends=True)
        found = [line for line in lines if line.startswith(("a=candidate:", "a=end-of-candidates"))]
        sdp = {"type": "offer", "sdp": "".join(line for line in lines if line not in found)}
        session = {"session_id": self.report.session_id}
        await self._say("signal_offer", session | {"sdp": sdp})
        for line in dict.fromkeys(found):  # each part of a bundle lists the same
            if line.startswith("a=candidate:"):
                candidate = {"candidate": line.strip()[2:], "sdpMid": "0", "sdpMLineIndex": 0}
                await self._say("signal_ice", session | {"candidate": candidate})
        await self._say("signal_ice", session | {"candidate": None})

    async def _candidate(self, said: dict[str, Any] | None) -> None:
        assert self._pc
        if said is None or not said["candidate"]:
            await self._pc.addIceCandidate(None)
            return
        candidate = candidate_from_sdp(said["candidate"].removeprefix("candidate:"))
        candidate.sdpMid, candidate.sdpMLineIndex = said["sdpMid"], said["sdpMLineIndex"]
        await self._pc.addIceCandidate(candidate)

    def _changed(self) -> None:
        assert self._pc
        if self._pc.connectionState == "connected":
            self.report.connected_s = self._since()
            self.report.path = path_of(self._pc)
        elif self._pc.connectionState == "failed":
            self.over.set()

    def _seen(self, track: MediaStreamTrack) -> None:
        self._start(self._watch_track(track))

    async def _watch_track(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                if track.kind == "audio":
                    self.report.sound += 1
                    continue
                with contextlib.suppress(Refused):
                    code = code_of(frame)
                    self.report.pictures.append((time.time_ns() // 1000, code.frame, code.time_us))
                self.report.first_picture_s = self.report.first_picture_s or self._since()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._say("heartbeat", {})

    async def _say(self, kind: str, payload: object) -> None:
        await self._ws.send(frame_of(kind, payload))

    def _since(self) -> float:
        return round(time.monotonic() - self._asked_s, 3)

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextlib.asynccontextmanager
async def viewer(hub: str, token: str, *, sound: bool = False) -> AsyncIterator[Viewer]:
    """A viewer who is let in. `hub`: http://HOST:PORT."""
    async with connect(f"ws{hub.removeprefix('http')}/ws/viewer", proxy=None) as ws:
        await ws.send(frame_of("hello", {"token": token}))
        hello = json.loads(await ws.recv())
        assert hello["type"] == "hello_ack", hello
        yield Viewer(ws, sound=sound)


async def seen(arguments: argparse.Namespace) -> Report:
    """Watch until there are so many pictures, or it ends, or the time is over."""
    async with viewer(arguments.hub, arguments.token, sound=arguments.sound) as me:
        watching = asyncio.create_task(me.watch(arguments.device, arguments.stream))
        deadline = time.monotonic() + arguments.seconds
        while len(me.report.pictures) < arguments.pictures and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(me.over.wait(), 0.02)
                break
            if watching.done():
                break
        if me.report.session_id and not me.report.ended:
            await me.leave()
        watching.cancel()
        return me.report


def main() -> int:
    """Print the report; 0 if there were as many pictures as were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hub", help="http://HOST:PORT")
    parser.add_argument("device")
    parser.add_argument("--token", required=True)
    parser.add_argument("--stream", default="")
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--sound", action="store_true")
    arguments = parser.parse_args()
    report = asyncio.run(seen(arguments))
    print(json.dumps(dataclasses.asdict(report)), flush=True)
    return int(len(report.pictures) < arguments.pictures)


if __name__ == "__main__":
    sys.exit(main())
