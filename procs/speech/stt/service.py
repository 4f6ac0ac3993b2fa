"""Who is heard: WebSockets that bring sound as it comes, and POSTs that bring a whole file.

This is the leader. It keeps the callers' connections and hands everything to a child for each: recognition takes a
tenth of a second now and then, in which nobody else is to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import msgspec
from aiohttp import WSMsgType, web

from procs import log
from procs.errors import PlanariaError, Refused
from procs.figures import Figures, Kind
from procs.settings import run_dir
from procs.speech import door
from procs.speech.options import Speech
from procs.speech.stt import frames
from procs.speech.stt.children import Brood, Child, Children
from procs.wire import moshi

PATH = "/api/asr-streaming"
PING_S = 13.0  # and half of it for the answer: after 20 s without any frame a caller is gone, as published
SILENT_S = 120.0  # without a message: the same
SEND_S = 10.0  # for a caller that does not read
FILE_S = 300.0
MAX_REASON = 100  # bytes of a close's reason; a frame has room for 123
FIGURES = {
    "asr_connect": Kind("counter", "connections"),
    "asr_open_channels": Kind("gauge", "connections that have a slot"),
    "asr_model_step_duration": Kind("histogram", "seconds a step of 80 ms took", (0.01, 0.02, 0.04, 0.08, 0.2, 1)),
    "asr_connection_num_steps": Kind("histogram", "steps of a connection", (25, 125, 250, 500, 750, 1500, 4500)),
    "asr_refused": Kind("counter", "connections that found no free slot"),
    "asr_failures": Kind("counter", "connections that ended with an error of ours or of the caller's"),
    "asr_words": Kind("counter", "messages of words and where they end"),
}


class _Left(Exception):
    """The caller is gone."""


class Stt:
    """The service."""

    name = "stt"
    max_body = 16 * 1024 * 1024

    def __init__(self, settings: Speech, brood: Brood) -> None:
        self._slots, self._used = settings.sessions, 0
        self._children = Children(brood, run_dir(), settings.pause_s)
        self.figures = Figures(FIGURES)

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [web.get(PATH, self._socket), web.post(PATH, self._post)]

    def modules(self) -> list[dict[str, object]]:
        """Its slots."""
        return [{"name": "asr", "path": PATH, "used_slots": self._used, "total_slots": self._slots}]

    async def run(self, opened: Callable[[], Awaitable[None]]) -> None:
        """For ever. Raises ZygoteLost."""
        ready = asyncio.Event()
        watching = asyncio.ensure_future(self._children.run(ready.set))
        await asyncio.wait([watching, asyncio.ensure_future(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
        if not watching.done():
            await opened()
        await watching

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        """GET: sound in; words and pauses out, until the caller leaves."""
        socket = web.WebSocketResponse(heartbeat=PING_S, max_msg_size=moshi.MAX_BYTES, compress=False)
        await socket.prepare(request)
        self.figures.add("asr_connect")
        with self._slot() as has_slot:
            if not has_slot:
                await _fail(socket, moshi.NO_CHANNELS, 1013)
                return socket
            try:
                child = await self._children.new()
                try:
                    await self._hold(socket, child)
                finally:
                    child.kill()
            except (_Left, TimeoutError, ConnectionError):
                await _close(socket)
            except PlanariaError as error:
                self.figures.add("asr_failures")
                log.warning("a session broke off", why=str(error))
                await _fail(socket, str(error), 1008 if isinstance(error, Refused) else 1011)
        return socket

    async def _hold(self, socket: web.WebSocketResponse, child: Child) -> None:
        await _send(socket, moshi.encode(moshi.Ready()))
        works = [
            asyncio.ensure_future(work) for work in (_upwards(socket, child), self._told(socket, child), child.watch())
        ]
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for work in done:  # each ends only by raising
                work.result()
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    async def _told(self, socket: web.WebSocketResponse, child: Child) -> None:
        steps = 0
        try:
            while True:
                kind, data = await child.receive()
                steps += kind == frames.STEP
                if message := self._for_caller(kind, data):
                    await _send(socket, message)
        finally:
            self.figures.observe("asr_connection_num_steps", steps)

    def _for_caller(self, kind: int, data: bytes) -> bytes:
        """The message in a child's frame, counted. Raises Refused with what the child could not take."""
        if kind == frames.FAILED:
            raise Refused(data.decode(errors="replace"))
        if kind == frames.STEP:
            self.figures.observe("asr_model_step_duration", frames.TOOK.unpack_from(data)[0])
            return data[frames.TOOK.size :]
        if kind == frames.MESSAGE:
            self.figures.add("asr_words")
            return data
        return b""

    async def _post(self, request: web.Request) -> web.Response:
        """POST: a whole file, answered with all its words as a JSON list."""
        with self._slot() as has_slot:  # before the body: a slot bounds how many are held in memory
            if not has_slot:
                return web.json_response({"error": moshi.NO_CHANNELS}, status=503)
            data = await door.body(request)
            try:
                async with asyncio.timeout(FILE_S):
                    child = await self._children.new()
                    try:
                        words = await self._words(child, data)
                    finally:
                        child.kill()
            except (PlanariaError, TimeoutError) as error:
                self.figures.add("asr_failures")
                return web.json_response({"error": str(error)}, status=400 if isinstance(error, Refused) else 503)
        return web.json_response(body=msgspec.json.encode(words))

    async def _words(self, child: Child, data: bytes) -> list[moshi.FromStt]:
        await child.send(frames.FILE, data)
        words: list[moshi.FromStt] = []
        while True:
            kind, said = await child.receive()
            if kind == frames.DONE:
                return words
            message = self._for_caller(kind, said)
            if kind == frames.MESSAGE:
                words.append(moshi.decode(message, moshi.FROM_STT))

    @contextmanager
    def _slot(self) -> Iterator[bool]:
        """One of those there are, if one is free."""
        if self._used >= self._slots:
            self.figures.add("asr_refused")
            yield False
            return
        self._used += 1
        self.figures.add("asr_open_channels")
        try:
            yield True
        finally:
            self._used -= 1
            self.figures.add("asr_open_channels", -1)


async def _upwards(socket: web.WebSocketResponse, child: Child) -> None:
    while True:
        async with asyncio.timeout(SILENT_S):
            frame = await socket.receive()
        if frame.type is WSMsgType.TEXT:
            raise Refused("a text frame, where only binary ones are spoken")
        if frame.type is not WSMsgType.BINARY:
            raise _Left
        await child.send(frames.MESSAGE, frame.data)


async def _send(socket: web.WebSocketResponse, message: bytes) -> None:
    async with asyncio.timeout(SEND_S):
        await socket.send_bytes(message)


async def _fail(socket: web.WebSocketResponse, why: str, code: int) -> None:
    """Say why, and close."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        await _send(socket, moshi.encode(moshi.Error(why)))
    await _close(socket, code, why)


async def _close(socket: web.WebSocketResponse, code: int = 1000, why: str = "") -> None:
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(SEND_S):
            await socket.close(code=code, message=why.encode()[:MAX_REASON])
