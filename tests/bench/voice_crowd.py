"""Many devices that only let a backend in: python -m tests.bench.voice_crowd COUNT SECONDS. It prints their ports.

Each says hello, lets so many seconds of silence be heard, and takes whatever comes for its speaker as played.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

import numpy as np
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from procs import life
from procs.media.opus import Encoder
from procs.wire import realtime as wire
from procs.wire.audio_frame import AudioFrame, pack_audio
from tests.rig import free_port

PACKET = 480
_SILENCE = Encoder().encode(np.zeros(20 * PACKET, np.int16))[-1]


async def _call(ws: ServerConnection, sound_s: float) -> None:
    with contextlib.suppress(ConnectionClosed):
        await ws.send(wire.encode(wire.Hello(name="idle", echo="cancelled")))
        hearing = asyncio.create_task(_hear(ws, sound_s))
        try:
            await _play(ws)
        finally:
            hearing.cancel()


async def _hear(ws: ServerConnection, sound_s: float) -> None:
    began = time.monotonic()
    with contextlib.suppress(ConnectionClosed):
        for number in range(round(sound_s * wire.RATE / PACKET)):
            await ws.send(pack_audio(AudioFrame(_SILENCE, number, number * PACKET, not number)))
            await asyncio.sleep(max(0.0, began + (number + 1) * PACKET / wire.RATE - time.monotonic()))


async def _play(ws: ServerConnection) -> None:
    responses = played = 0
    while True:
        frame = await ws.recv()
        if isinstance(frame, bytes):
            played += PACKET
            continue
        event = wire.decode(frame, wire.FROM_BACKEND)
        if isinstance(event, wire.ResponseCreated):
            responses, played = responses + 1, 0
        elif isinstance(event, wire.AudioDone):
            heard_ms = 1000 * played / wire.RATE
            done = wire.Playback(response=responses, state="done", heard_ms=heard_ms, buffered_ms=0.0)
            await ws.send(wire.encode(done))


async def _serve(count: int, sound_s: float) -> None:
    async def call(ws: ServerConnection) -> None:
        await _call(ws, sound_s)

    ports = [free_port() for _ in range(count)]
    for port in ports:
        await serve(
            call, "127.0.0.1", port, subprotocols=[Subprotocol(wire.OURS)], compression=None, ping_interval=None
        )
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    life.bind_to_parent()
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
