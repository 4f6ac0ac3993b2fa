"""Speech services that do as a test says, and nothing else: a recogniser, a synthesiser, a language model."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import numpy as np
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from procs.messages.voice import Services
from tests.rig import free_port

pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
STEP = [0.0] * 1920
Message = dict[str, Any]


class Speech:
    """A recogniser or a synthesiser: what it was told, and what it says to that. `answer` gets each message; `full`:
    it has no room; `silent`: it never says that it is ready."""

    def __init__(self, answer: Callable[[Speech, ServerConnection, Message], Awaitable[None]] | None = None) -> None:
        self.port = free_port()
        self._answer = answer
        self.full = self.silent = False
        self.sessions: list[list[Message]] = []
        self.paths: list[str] = []
        self.sockets: list[ServerConnection] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def told(self) -> list[Message]:
        """In the last session."""
        return self.sessions[-1] if self.sessions else []

    def count(self, kind: str) -> int:
        """How many messages of a kind the last session had."""
        return sum(each["type"] == kind for each in self.told)

    async def say(self, kind: str, **fields: Any) -> None:
        """In the last session."""
        await self.sockets[-1].send(pack({"type": kind, **fields}))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Speech]:
        async with serve(self._call, "127.0.0.1", self.port, compression=None, max_size=None):
            yield self

    async def _call(self, socket: ServerConnection) -> None:
        assert socket.request
        told: list[Message] = []
        self.paths.append(socket.request.path)
        with contextlib.suppress(ConnectionClosed):
            if self.full:
                await socket.send(pack({"type": "Error", "message": "no free channels"}))
                return
            if self.silent:
                await socket.wait_closed()
                return
            self.sessions.append(told)
            self.sockets.append(socket)
            await socket.send(pack({"type": "Ready"}))
            async for frame in socket:
                assert isinstance(frame, bytes)
                told.append(unpack(frame))
                if self._answer:
                    await self._answer(self, socket, told[-1])


async def hears(_: Speech, socket: ServerConnection, message: Message) -> None:
    """A recogniser of nothing: a step for each 80 ms, and each mark is back at once."""
    if message["type"] == "Audio":
        await socket.send(pack({"type": "Step", "step_idx": 0, "prs": [0.1, 0.2, 0.3, 0.4], "buffered_pcm": 0}))
    elif message["type"] == "Marker":
        await socket.send(pack(message))


async def speaks(_: Speech, socket: ServerConnection, message: Message) -> None:
    """A synthesiser: each word is 80 ms."""
    if message["type"] == "Text":
        for word in message["text"].split():
            await socket.send(pack({"type": "Text", "text": word, "start_s": 0.0, "stop_s": 0.08}))
            await socket.send(pack({"type": "Audio", "pcm": STEP}))
    elif message["type"] == "Eos":
        await socket.close()


class Model:
    """A language model: what it was asked, and what it answers: pieces of text, or lines as they are."""

    def __init__(self, *pieces: str) -> None:
        self.port = free_port()
        self.pieces = list(pieces)
        self.raw: list[bytes] = []  # in their place
        self.models = ["one"]
        self.status = 200
        self.refuses = ""  # a field for which it answers 400
        self.redirect = ""  # where it says that it is, instead
        self.refusal = "not like this"  # what it says then, and with a status
        self.hold = asyncio.Event()  # what comes after the pieces waits for this
        self.hold.set()
        self.asked: list[dict[str, Any]] = []
        self.left = 0  # callers that went away in the middle

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Model]:
        app = web.Application()
        app.add_routes([web.get("/v1/models", self._list), web.post("/v1/chat/completions", self._complete)])
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield self
        finally:
            self.hold.set()
            await runner.cleanup()

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.asked.append({**asked, "bearer": request.headers.get("Authorization", "")})
        if self.redirect:
            return web.Response(status=307, headers={"Location": self.redirect}, text="not here")
        if self.status != 200 or (self.refuses and self.refuses in asked):
            return web.Response(status=self.status if self.status != 200 else 400, text=self.refusal)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for line in self.raw or [_event(piece) for piece in self.pieces]:
                await response.write(line)
            await self.hold.wait()
            if not self.raw:
                await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise
        return response


def _event(piece: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]}).encode() + b"\n\n"


def services(stt: str | list[str] = "", tts: str | list[str] = "", llm: str = "", **more: Any) -> Services:
    """Where they are."""
    return Services(stt=[stt] if isinstance(stt, str) else stt, tts=[tts] if isinstance(tts, str) else tts,
                    llm=llm, **more)  # fmt: skip


def step(value: int = 0) -> Any:
    """80 ms that can be told from others."""
    return np.full(1920, value, np.int16)


async def until(look: Callable[[], Any], within_s: float = 10.0) -> Any:
    """What it gives once it is true."""
    async with asyncio.timeout(within_s):
        while not (found := look()):  # noqa: ASYNC110 - whatever it looks at tells nobody
            await asyncio.sleep(0.01)
        return found
