"""Speech services that answer from memory, so that what is left is ours: python -m tests.bench.voice_fakes PORT REPLY

One process for all three. A turn is over after PAUSE_S without sound, whoever spoke said "hello", and the answer is
REPLY, whose every word sounds the same. /seen tells when what was seen, and forgets it: [what, time.monotonic(),
seconds].
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import numpy as np
import uvloop
from aiohttp import WSMsgType, web

from procs import life
from procs.wire import moshi

STEP_S = moshi.STEP / moshi.RATE
LOUD = 500  # from the first to the last of such samples somebody speaks
PAUSE_S = 0.48
WORD_S = 0.24
_WORD = moshi.encode(moshi.Audio((6000 * np.sin(np.arange(round(WORD_S * moshi.RATE)) / 9)).astype(np.int16)))
_READY = moshi.encode(moshi.Ready())


class Fakes:
    """The three."""

    def __init__(self, reply: str) -> None:
        self._words = reply.split()
        self._seen: list[tuple[str, float, float]] = []

    def app(self) -> web.Application:
        """What they answer."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/api/build_info", self._up),
                web.get("/v1/models", self._up),
                web.get("/seen", self._tell),
                web.get("/api/asr-streaming", self._hear),
                web.get("/api/tts_streaming", self._speak),
                web.post("/v1/chat/completions", self._think),
            ]
        )
        return app

    def _note(self, what: str, seconds: float = 0.0) -> None:
        self._seen.append((what, time.monotonic(), seconds))

    async def _up(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "memory"}]})

    async def _tell(self, _: web.Request) -> web.Response:
        seen, self._seen = self._seen, []
        return web.json_response(seen)

    async def _hear(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=moshi.MAX_BYTES)
        await ws.prepare(request)
        await ws.send_bytes(_READY)
        steps, quiet_s, spoke = 0, 0.0, False
        async for frame in ws:
            if frame.type != WSMsgType.BINARY:
                break
            message = moshi.decode(frame.data, moshi.TO_STT)
            if isinstance(message, moshi.Marker):
                self._note("flushed")
                await ws.send_bytes(moshi.encode(message))
            elif isinstance(message, moshi.Audio):
                loud = np.flatnonzero(np.abs(message.pcm.astype(np.int32)) > LOUD)
                quiet_s = (moshi.STEP - 1 - loud[-1]) / moshi.RATE if len(loud) else quiet_s + STEP_S
                if len(loud) and not spoke:
                    spoke = True
                    await ws.send_bytes(moshi.encode(moshi.Word("hello", steps * STEP_S)))
                is_over = quiet_s >= PAUSE_S
                if is_over and spoke:
                    spoke = False
                    self._note("pause", quiet_s)
                steps += 1
                await ws.send_bytes(moshi.encode(moshi.Step(steps, [float(is_over)] * 4)))
        return ws

    async def _think(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self._note("asked")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in self._words:
            chunk = {"choices": [{"delta": {"content": f"{word} "}}]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _speak(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=moshi.MAX_BYTES)
        await ws.prepare(request)
        await ws.send_bytes(_READY)
        count = 0
        async for frame in ws:
            if frame.type != WSMsgType.BINARY:
                break
            message = moshi.decode(frame.data, moshi.TO_TTS)
            if isinstance(message, moshi.Eos):
                break
            if isinstance(message, moshi.Text):
                if not count:
                    self._note("to speak")
                for word in message.text.split():
                    await ws.send_bytes(moshi.encode(moshi.TimedText(word, count * WORD_S, (count + 1) * WORD_S)))
                    await ws.send_bytes(_WORD)
                    count += 1
        await ws.close()
        return ws


async def _serve(port: int, reply: str) -> None:
    runner = web.AppRunner(Fakes(reply).app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    life.bind_to_parent()
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
