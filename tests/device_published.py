"""A device as published, written from the protocol alone: aiortc, websockets, JSON.

It decodes its source once a viewer and encodes it again, and it can't trickle: the answer comes after all candidates
are known, and carries them. In its older form the peer connection is made at watch_request and waits for the offer.
As a program: python -m tests.device_published http://HUB pi-cam-001 --source rtsp://HOST/STREAM (default: a pattern).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
import urllib.request
from fractions import Fraction
from typing import Any

import av
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.contrib.media import MediaPlayer
from aiortc.sdp import candidate_from_sdp
from websockets.asyncio.client import ClientConnection, connect

from procs.media import barcode
from tests.viewer_minimal import BEAT_S, configuration, frame_of

WIDTH, HEIGHT = 320, 180
STREAMS = {"omega-0": {"producers": [{"url": "exec:..."}], "consumers": None}}


class Pattern(VideoStreamTrack):
    """Grey pictures with a barcode, 30 a second."""

    frame = 0

    async def recv(self) -> av.VideoFrame:
        """The next, when it is due."""
        pts, time_base = await self.next_timestamp()
        picture = _drawn(self.frame)
        picture.pts, picture.time_base = pts, Fraction(time_base)
        self.frame += 1
        return picture


def _drawn(frame: int) -> av.VideoFrame:
    picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    luma = picture.planes[0]
    stride = luma.line_size
    data = bytearray(b"\x80" * (stride * HEIGHT))
    lines = barcode.rows(barcode.encode(frame, time.time_ns() // 1000), WIDTH)
    for (first, end), line in zip(barcode.row_edges(HEIGHT), lines, strict=True):
        for at in range(first, end):
            data[at * stride : at * stride + WIDTH] = line
    luma.update(bytes(data))
    for plane in picture.planes[1:]:
        plane.update(b"\x80" * plane.buffer_size)
    return picture


def source_of(address: str) -> MediaStreamTrack:
    """A track of its own for each viewer, as the published guide has it."""
    if not address:
        return Pattern()
    track = MediaPlayer(address, options={"rtsp_transport": "tcp"}).video
    assert track
    return track


class Device:
    """What it does of what the hub asks."""

    def __init__(self, ws: ClientConnection, source: str) -> None:
        self._ws, self._source = ws, source
        self._sessions: dict[str, RTCPeerConnection] = {}

    async def serve(self) -> None:
        """Until the hub has gone."""
        beating = asyncio.create_task(self._beat())
        with contextlib.suppress(asyncio.CancelledError):
            async for text in self._ws:
                message = json.loads(text)
                await self._take(message["type"], message["payload"])
        beating.cancel()

    async def _take(self, kind: str, payload: dict[str, Any]) -> None:
        session = payload.get("session_id", "")
        if kind == "watch_request":
            pc = self._sessions[session] = RTCPeerConnection(configuration(payload["ice_servers"]))
            pc.addTrack(source_of(self._source))
            return
        known = self._sessions.get(session)
        if not known:
            return
        if kind == "signal_offer":
            await known.setRemoteDescription(RTCSessionDescription(payload["sdp"]["sdp"], "offer"))
            await known.setLocalDescription(await known.createAnswer())  # waits for all candidates
            sdp = {"type": "answer", "sdp": known.localDescription.sdp}
            await self._say("signal_answer", {"session_id": session, "sdp": sdp})
        elif kind == "signal_ice" and payload["candidate"]:
            said = payload["candidate"]
            candidate = candidate_from_sdp(said["candidate"].removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = said["sdpMid"], said["sdpMLineIndex"]
            await known.addIceCandidate(candidate)
        elif kind == "signal_ice":
            await known.addIceCandidate(None)
        elif kind == "watch_ended":
            await self._sessions.pop(session).close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._say("heartbeat", {})

    async def _say(self, kind: str, payload: object) -> None:
        await self._ws.send(frame_of(kind, payload))


async def run(hub: str, device_id: str, secret: str = "", source: str = "") -> None:
    """Say hello and serve, until the connection ends. `hub`: http://HOST:PORT, which takes the published ways."""
    await asyncio.to_thread(_register, hub, device_id)
    async with connect(f"ws{hub.removeprefix('http')}/ws/device", proxy=None, max_size=None) as ws:
        hello = {"device_id": device_id, "agent_version": "2.0.0-go2rtc"}
        await ws.send(frame_of("hello", hello | ({"device_secret": secret} if secret else {})))
        answer = json.loads(await ws.recv())
        assert answer["type"] == "hello_ack", answer
        await ws.send(frame_of("capabilities", {"device_id": device_id, "streams": STREAMS}))
        print("online", flush=True)
        await Device(ws, source).serve()


def _register(hub: str, device_id: str) -> None:
    body = json.dumps({"device_id": device_id}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{hub}/api/devices/register", body, headers, method="POST")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()


def main() -> int:
    """Serve; says `online` once it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hub", help="http://HOST:PORT")
    parser.add_argument("device_id")
    parser.add_argument("--secret", default="")
    parser.add_argument("--source", default="")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.hub, arguments.device_id, arguments.secret, arguments.source))
    return 0


if __name__ == "__main__":
    sys.exit(main())
