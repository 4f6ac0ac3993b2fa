"""Many devices that know only the published frames, with streams, pictures and processes of a test's choice: in a
thread of their own, for people to look at."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.hub_rig import Process
from tests.rig import until

BEAT_S = 15.0
AT_ONCE = 25  # that say hello at the same time
_TS = "2026-01-01T12:00:00.000000"
_PICTURE = "ffmpeg -v error -f lavfi -i testsrc2=size=320x180 -frames:v 1 -f mjpeg -"


@dataclass
class Camera:
    """A device. `streams`: name -> whether it runs; `processes`: as its warden would tell of them, and so `carries`."""

    device_id: str
    name: str
    streams: Mapping[str, bool] = field(default_factory=dict)
    processes: Sequence[Mapping[str, Any]] = ()
    is_online: bool = True
    carries: dict[str, Any] = field(default_factory=dict)  # `tunnel` and `watching` of its suite


def many(count: int) -> list[Camera]:
    """So many: three in four are online, every other one of these has a stream that runs."""
    return [
        Camera(f"many-{n:04}", f"Camera {n:04}", {"omega-0": n % 2 == 0, "omega-1": False}, is_online=n % 4 != 3)
        for n in range(count)
    ]


def process(name: str, pid: int = 100, last_end: str = "") -> dict[str, Any]:
    """One process, well."""
    recovery = {"bounds_s": [0.1, 1.0], "counts": [1, 0, 0] if last_end else [0, 0, 0]}
    return {
        "name": name, "pid": pid, "state": "SERVING", "age_s": 60.0, "memory": 20_000_000, "failures": 0, "wait_s": 0.0,
        "restarts_hour": 0, "restarts": int(bool(last_end)), "last_end": last_end,
        "last_end_at": _TS if last_end else "", "recovery": recovery,
    }  # fmt: skip


# What a device with a tunnel to two others says, and of two who watch it.
CARRIES: dict[str, Any] = {
    "tunnel": [
        {
            **{"peer": "bob", "is_up": True, "plane": 2, "path": "direct", "remote": "192.0.2.7:4500"},
            **{"round_trip_ms": 12.5, "sent_bits_per_s": 640_000, "received_bits_per_s": 2_140_000},
            "dropped": {"too_big": 3, "spoofed": 1},
        },
        {"peer": "eve", "why": "no answer from 192.0.2.8:4500 yet"},
    ],
    "watching": [{"stream": "front", "viewers": 3, "direct": 1, "relayed": 1, "bits_per_s": 2e6, "loss": 0.025}],
}


def own(hub: Process, cameras: Sequence[Camera], username: str = "admin") -> None:
    """Make them known and somebody's, as if they had registered and been paired, which is limited to a few a second.
    They were here an hour ago."""
    now = time.time()
    rows = [(each.device_id, each.name, "camera", now - 7200, now - 3600, username) for each in cameras]
    store = sqlite3.connect(hub.run_dir / "hub.sqlite", timeout=10)
    with store:
        store.executemany(
            "INSERT INTO devices (device_id, device_name, device_type, created_at, last_seen, owner_id)"
            " VALUES (?, ?, ?, ?, ?, (SELECT id FROM users WHERE username = ?))",
            rows,
        )
    store.close()


Pictures = Callable[[Camera, str], bytes]  # what a device answers to a request for that path


class _Device:
    """One connection."""

    def __init__(self, camera: Camera, port: int, pictures: Pictures) -> None:
        self.camera, self._port, self._pictures = camera, port, pictures
        self.is_in = False

    async def live(self, turn: asyncio.Semaphore) -> None:
        """Be connected, again and again: the hub may be killed."""
        address = f"ws://127.0.0.1:{self._port}/ws/device"
        while True:
            with contextlib.suppress(OSError, ConnectionClosed, TimeoutError):
                async with turn:
                    ws = await connect(address, compression=None, ping_interval=None, proxy=None)
                await self._talk(ws)
            self.is_in = False
            await asyncio.sleep(0.5)

    async def _talk(self, ws: ClientConnection) -> None:
        try:
            await self._say_hello(ws)
            async with asyncio.TaskGroup() as tasks:
                beat = tasks.create_task(self._beat(ws))
                await self._hear(ws)
                beat.cancel()
        finally:
            ws.transport.abort()

    async def _say_hello(self, ws: ClientConnection) -> None:
        caps = ["suite"] if self.camera.processes else []
        hello = {"device_id": self.camera.device_id, "agent_version": "2.0.0", "caps": caps}
        await _say(ws, "hello", hello)
        answer = json.loads(await ws.recv())
        assert answer["type"] == "hello_ack", answer
        streams = {
            name: {"producers": [{"url": "exec:...", **({"format_name": "h264"} if runs else {})}], "consumers": None}
            for name, runs in self.camera.streams.items()
        }
        await _say(ws, "capabilities", {"device_id": self.camera.device_id, "streams": streams})
        self.is_in = True

    async def _beat(self, ws: ClientConnection) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await _say(ws, "heartbeat", {})

    async def _hear(self, ws: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in ws:
                frame = json.loads(text)
                if frame["type"] == "proxy_http":
                    body = await asyncio.to_thread(self._pictures, self.camera, frame["payload"]["path"])
                    told = {"rid": frame["payload"]["rid"], "status": 200, "headers": {"Content-Type": "image/jpeg"}}
                    await _say(ws, "proxy_http_resp", told | {"body_b64": base64.b64encode(body).decode()})
                elif frame["type"] == "suite_watch":
                    suite = {"at": _TS, "processes": list(self.camera.processes), "troubles": []}
                    await _say(ws, "suite", suite | self.camera.carries)


async def _say(ws: ClientConnection, kind: str, payload: object) -> None:
    await ws.send(json.dumps({"type": kind, "ts": _TS, "payload": payload}))


@contextmanager
def online(hub: Process, cameras: Sequence[Camera], pictures: Pictures | None = None) -> Iterator[None]:
    """Those of them that are to be online are, for as long as the block lasts. `pictures`: of a camera's path."""
    if pictures is None:
        still = subprocess.run(_PICTURE.split(), capture_output=True, check=True).stdout
        pictures = lambda camera, path: still  # noqa: E731
    devices = [_Device(each, hub.port, pictures) for each in cameras if each.is_online]
    loop = asyncio.new_event_loop()

    async def live() -> None:
        turn = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(device.live(turn) for device in devices))

    task: asyncio.Task[None] = loop.create_task(live())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(asyncio.sleep(0.1))  # for what was aborted to be closed

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        until(lambda: all(device.is_in for device in devices), 60)
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()
