"""Many bare devices in one process: python -m tests.bench.crowd PORT FIRST COUNT, told by lines on stdin what to do.

connect SECONDS   connect all, spread over so long      -> {"hello_ms": [...], "failed": 0}
report            what has come of the heartbeats       -> {"beats": 0, "late": 0, "worst_ms": 0, "open": 0}
drop              cut all connections, without a word   -> {"open": 0}

The frames are made by hand, so that a device costs next to nothing beside what the hub spends on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import re
import resource
import sys
import time
from typing import Any, cast

import uvloop

from procs import life
from procs.wire import challenge

BEAT_S = 15.0
LATE_S = 1.0
LIMIT_S = 60.0  # for a device to be let in
INSTANCE = "0123456789abcdef"
NONCE = "ab" * 32
_HUB_NONCE = re.compile(rb'"nonce": ?"([0-9a-f]+)"')
_TS = "2026-01-01T00:00:00.000000"


def device_id(number: int) -> str:
    """What a device is called."""
    return f"crowd-{number:06}"


def keys(number: int) -> challenge.Keys:
    """Those of a device: without the thousands of rounds by which a secret becomes keys, of which the hub sees none."""
    client_key = hashlib.sha256(f"client {number}".encode()).digest()
    server_key = hashlib.sha256(f"server {number}".encode()).digest()
    return challenge.Keys(client_key, hashlib.sha256(client_key).digest(), server_key)


def _frame(kind: str, payload: dict[str, Any]) -> bytes:
    """A text frame of a client's, masked with zeros."""
    text = json.dumps({"type": kind, "ts": _TS, "payload": payload}).encode()
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + text


HEARTBEAT = _frame("heartbeat", {})
UPGRADE = (
    b"GET /ws/device HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Device(asyncio.Protocol):
    """One connection of one device."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd, self._number = crowd, number
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._is_upgraded = self.is_in = False
        self._asked_at = 0.0  # when the hello, or a heartbeat that has no answer yet, went out
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._crowd.open.add(self)
        self._write(UPGRADE)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._is_upgraded:
            head, found, self._data = self._data.partition(b"\r\n\r\n")
            if not found:
                self._data = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._crowd.has_failed(head[:200].decode(errors="replace"))
                self.drop()
                return
            self._is_upgraded = True
            self._say_hello()
        while len(self._data) >= 4:
            size, start = self._data[1], 2
            if size == 126:
                size, start = int.from_bytes(self._data[2:4], "big"), 4
            if len(self._data) < start + size:
                return
            self._received(self._data[0] & 15, self._data[start : start + size])
            self._data = self._data[start + size :]

    def _say_hello(self) -> None:
        payload = {"device_id": device_id(self._number), "agent_version": "1", "go2rtc_http": "", "instance": INSTANCE}
        self._ask(_frame("hello", payload | {"caps": ["mux1", "challenge"], "nonce": NONCE}))

    def _ask(self, frame: bytes) -> None:
        self._asked_at = time.monotonic()
        self._write(frame)

    def _write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _received(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            self._write(b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload)
        elif opcode == 8:
            self._crowd.has_failed(payload[2:].decode(errors="replace") or "closed")
        elif not self.is_in and (nonce := _HUB_NONCE.search(payload)) and b'"challenge"' in payload:
            said = challenge.transcript(device_id(self._number), INSTANCE, NONCE, nonce[1].decode())
            self._write(_frame("challenge_resp", {"proof": challenge.proof(keys(self._number), said)}))
        elif b'"hello_ack"' in payload:
            self.is_in = True
            self._crowd.has_come(time.monotonic() - self._asked_at)
            self._asked_at = 0.0
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(random.uniform(0, BEAT_S), self._beat)
        elif b'"heartbeat_ack"' in payload:
            self._crowd.has_beaten(time.monotonic() - self._asked_at)
            self._asked_at = 0.0

    def _beat(self) -> None:
        if self._asked_at:
            self._crowd.has_beaten(BEAT_S)
        self._ask(HEARTBEAT)
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._crowd.has_gone(self)
        if self._timer is not None:
            self._timer.cancel()

    def drop(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()


class Crowd:
    """All of them."""

    def __init__(self, port: int, first: int, count: int) -> None:
        self._port, self._numbers = port, range(first, first + count)
        self.open: set[Device] = set()
        self.failures: list[str] = []
        self._hello_s: list[float] = []
        self._beats = self._late = 0
        self._worst_s = 0.0
        self._settled, self._empty = asyncio.Event(), asyncio.Event()

    def has_come(self, seconds: float) -> None:
        """A device is in, so long after its hello."""
        self._hello_s.append(seconds)
        self._look()

    def has_failed(self, why: str) -> None:
        """A device was not let in, or its connection was closed."""
        self.failures.append(why)
        self._look()

    def has_gone(self, device: Device) -> None:
        """A connection is over."""
        self.open.discard(device)
        self._look()

    def _look(self) -> None:
        if len(self._hello_s) + len(self.failures) >= len(self._numbers):
            self._settled.set()
        if not self.open:
            self._empty.set()

    def has_beaten(self, seconds: float) -> None:
        """A heartbeat was answered after so long (or not, until the next)."""
        self._beats += 1
        self._late += seconds > LATE_S
        self._worst_s = max(self._worst_s, seconds)

    async def connect(self, spread_s: float) -> dict[str, Any]:
        """Have all come, at even distances in an order of chance."""
        self._hello_s, self.failures = [], []
        self._settled.clear()
        loop, began = asyncio.get_running_loop(), time.monotonic()
        numbers = random.sample(self._numbers, len(self._numbers))
        tasks = []
        for place, number in enumerate(numbers):
            await asyncio.sleep(max(0.0, began + spread_s * place / len(numbers) - time.monotonic()))
            tasks.append(loop.create_task(self._one(number)))
        await asyncio.gather(*tasks)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                await self._settled.wait()
        failed = len(numbers) - len(self._hello_s)
        return {"hello_ms": [round(1000 * s, 2) for s in self._hello_s], "failed": failed, "why": self.failures[:3]}

    async def _one(self, number: int) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: Device(self, number), "127.0.0.1", self._port)
        except OSError as error:
            self.has_failed(str(error))

    def report(self) -> dict[str, Any]:
        """Heartbeats since the last report."""
        found: dict[str, Any] = {
            "beats": self._beats,
            "late": self._late,
            "worst_ms": round(1000 * self._worst_s, 1),
        }
        self._beats, self._late, self._worst_s = 0, 0, 0.0
        return {**found, "open": sum(device.is_in for device in self.open)}

    async def drop(self) -> dict[str, Any]:
        """All are gone at once."""
        self._empty.clear()
        for device in list(self.open):
            device.drop()
        await self._empty.wait()
        return {"open": 0}


async def serve(crowd: Crowd) -> None:
    """Do what stdin says, until its end."""
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        if line[0] == "connect":
            answer = await crowd.connect(float(line[1]))
        else:
            answer = crowd.report() if line[0] == "report" else await crowd.drop()
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Be a crowd."""
    life.bind_to_parent()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(Crowd(*map(int, sys.argv[1:]))))


if __name__ == "__main__":
    main()
