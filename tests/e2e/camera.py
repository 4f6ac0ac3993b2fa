"""A device of the published kind whose faults a test chooses: it freezes, goes silent, ends sessions, goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import Any

import av
from aiortc import RTCPeerConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.device_published import STREAMS, Device, Pattern
from tests.viewer_minimal import configuration, frame_of

AGAIN_S = 0.2
INSTANCE = "camera-instance-1"


class _Freezable(Pattern):
    """Fifteen pictures a second: each costs a processor three times, drawn, encoded and shown."""

    def __init__(self, camera: Camera) -> None:
        super().__init__()
        self._camera = camera

    async def recv(self) -> av.VideoFrame:
        while self._camera.is_frozen:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await self.next_timestamp()  # of the one that is left out
        self.frame = self._camera.next_frame()
        return await super().recv()


class _Serving(Device):
    def __init__(self, ws: ClientConnection, camera: Camera) -> None:
        super().__init__(ws, "")
        self._camera = camera
        self._sessions = camera.sessions  # media lives on while the hub is away

    async def _take(self, kind: str, payload: dict[str, Any]) -> None:
        self._camera.heard.append((kind, payload))
        if kind == "watch_request":
            pc = RTCPeerConnection(configuration(payload["ice_servers"]))
            pc.addTrack(_Freezable(self._camera))
            self._sessions[payload["session_id"]] = pc
            self._camera.most = max(self._camera.most, len(self._sessions))
        elif kind == "watch_ended" and payload["session_id"] not in self._sessions:
            return
        elif kind != "signal_offer" or not self._camera.is_silent:
            await super()._take(kind, payload)


class Camera(threading.Thread):
    """Serves in a thread for as long as the test runs, and connects again by itself while it is not `is_away`.

    `heard`: every frame for it, (type, payload). `sessions`: those it has by now. `most`: how many at once, ever.
    """

    def __init__(self, port: int, device_id: str) -> None:
        super().__init__(daemon=True)
        self._port, self._device_id = port, device_id
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.sessions: dict[str, RTCPeerConnection] = {}
        self.most = 0
        self.is_frozen = self.is_silent = self.is_away = False
        self._frame = 0
        self._loop = asyncio.new_event_loop()
        self._ws: ClientConnection | None = None
        self.start()

    def run(self) -> None:
        """Serve."""
        self._loop.run_until_complete(self._live())

    def next_frame(self) -> int:
        """Pictures are numbered over all sessions."""
        self._frame += 1
        return self._frame

    def asked(self) -> list[str]:
        """The sessions that were asked for."""
        return [payload["session_id"] for kind, payload in self.heard if kind == "watch_request"]

    def end(self, session_id: str, why: str) -> None:
        """Close a session, and say so."""
        ended = {"session_id": session_id, "reason": "error", "why": why}
        asyncio.run_coroutine_threadsafe(self._end(ended), self._loop).result(10)

    async def _end(self, ended: dict[str, str]) -> None:
        await self.sessions.pop(ended["session_id"]).close()
        assert self._ws
        await self._ws.send(frame_of("watch_ended", ended))

    def leave(self) -> None:
        """Drop the connection and every session, until `come_back`."""
        self.is_away = True
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(10)

    async def _leave(self) -> None:
        if self._ws:
            await self._ws.close()
        for session in list(self.sessions):
            await self.sessions.pop(session).close()

    def come_back(self) -> None:
        """Connect again."""
        self.is_away = False

    async def _live(self) -> None:
        while True:
            if not self.is_away:
                with contextlib.suppress(OSError, WebSocketException):
                    await self._serve()
            await asyncio.sleep(AGAIN_S)

    async def _serve(self) -> None:
        async with connect(f"ws://127.0.0.1:{self._port}/ws/device", proxy=None, max_size=None) as ws:
            self._ws = ws
            hello = {"device_id": self._device_id, "agent_version": "test", "instance": INSTANCE}
            await ws.send(frame_of("hello", hello))
            assert json.loads(await ws.recv())["type"] == "hello_ack"
            await ws.send(frame_of("capabilities", {"device_id": self._device_id, "streams": STREAMS}))
            await _Serving(ws, self).serve()
