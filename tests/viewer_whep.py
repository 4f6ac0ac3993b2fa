"""A WHEP player: HTTP, SDP and aiortc, and nothing of ours."""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Player:
    """One that posts its offer to `address`, with all its candidates, and counts what it sees until it leaves."""

    address: str
    token: str
    place: str = ""
    pictures: int = 0
    pc: RTCPeerConnection = field(default_factory=lambda: RTCPeerConnection(RTCConfiguration(iceServers=[])))
    _works: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Player:
        self.pc.on("track", self._see)
        self.pc.addTransceiver("video", "recvonly")
        await self.pc.setLocalDescription(await self.pc.createOffer())
        status, headers, text = await self._ask("POST", self.address, self.pc.localDescription.sdp.encode())
        assert status == 201 and headers["Content-Type"] == "application/sdp"
        self.place = self.address.partition("/api/")[0] + headers["Location"]
        await self.pc.setRemoteDescription(RTCSessionDescription(text.decode(), "answer"))
        return self

    async def __aexit__(self, _: object, __: object, ___: TracebackType | None) -> None:
        for work in self._works:
            work.cancel()
        await self.pc.close()

    async def leave(self) -> None:
        """Say so."""
        status, _, _ = await self._ask("DELETE", self.place)
        assert status == 200

    async def has_seen(self, pictures: int, within_s: float = 20.0) -> None:
        """Until there were so many."""
        wanted = self.pictures + pictures
        async with asyncio.timeout(within_s):
            while self.pictures < wanted:  # noqa: ASYNC110 - it is counted in a task of its own
                await asyncio.sleep(0.02)

    async def _ask(self, method: str, address: str, body: bytes | None = None) -> tuple[int, Any, bytes]:
        headers = {"Authorization": f"Bearer {self.token}"} | ({"Content-Type": "application/sdp"} if body else {})

        def ask() -> tuple[int, Any, bytes]:
            request = urllib.request.Request(address, body, headers, method=method)
            with DIRECT.open(request, timeout=20) as answer:
                return answer.status, answer.headers, answer.read()

        return await asyncio.to_thread(ask)

    def _see(self, track: MediaStreamTrack) -> None:
        self._works.append(asyncio.ensure_future(self._count(track)))

    async def _count(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                await track.recv()
            except MediaStreamError:
                return
            self.pictures += 1
