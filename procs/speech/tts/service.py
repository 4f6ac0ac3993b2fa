"""Who is spoken for: WebSockets that bring words as they come, and POSTs that bring a whole text."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from socket import SO_SNDBUF, SOL_SOCKET

import msgspec
from aiohttp import WSMsgType, web

from procs import log
from procs.errors import NotHere, PlanariaError, Refused
from procs.figures import Figures, Kind
from procs.speech import door
from procs.speech.options import Speech
from procs.speech.tts import formats, synthesis, voices
from procs.speech.tts.answer import SEND_S, File, Whole
from procs.speech.tts.clauses import Clause, Clauses
from procs.speech.tts.track import Step, Track
from procs.speech.tts.voices import Voice
from procs.wire import moshi

PATH = "/api/tts_streaming"
PING_S = 10.0
ALIVE_S = 30.0  # without any frame, were it the answer to a ping
WORDS_S = 120.0  # without a word or the end
CLOSE_S = 60.0  # until they have read it all
SEND_BYTES = 256 * 1024  # that the kernel holds for a caller that plays as it reads: two seconds
WAITING = 64  # messages that are read ahead
VOICE = "X-Voice"  # header of an answer: who speaks
MOST_NAMES = 200  # that are remembered, and characters of each
MAX_REASON = 100  # bytes of a close's reason; a frame has room for 123
FIGURES = {
    "py_connect": Kind("counter", "connections"),
    "py_open_channels": Kind("gauge", "connections that have a slot"),
    "py_total_steps": Kind("counter", "steps of 80 ms that were spoken"),
    "py_model_step_duration": Kind("histogram", "seconds a clause took", (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)),
    "py_model_connection_num_steps": Kind("histogram", "steps of a connection", (12, 25, 50, 100, 200, 400, 800)),
    "tts_refused": Kind("counter", "connections that found no free slot"),
    "tts_failures": Kind("counter", "connections that ended with an error of ours or of the caller's"),
    "tts_words": Kind("counter", "words that were spoken"),
}


class _Left(Exception):
    """The caller is gone."""


class Tts:
    """The service."""

    name = "tts"
    max_body = 1024 * 1024

    def __init__(self, settings: Speech) -> None:
        self._slots = settings.sessions
        self.figures = Figures(FIGURES)
        self._replaced: set[str] = set()  # names of voices of which the log knows who speaks in their place
        self._turns = asyncio.Semaphore(max(2, os.cpu_count() or 2))  # synthesisers at a time, in the order asked

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [web.get(PATH, self._socket), web.post(PATH, self._post)]

    def modules(self) -> list[dict[str, object]]:
        """Its slots."""
        return [{"name": "tts", "path": PATH, "used_slots": self._used(), "total_slots": self._slots}]

    async def run(self, opened: Callable[[], Awaitable[None]]) -> None:
        """For ever. Raises NotHere."""
        synthesis.program("flite")
        try:
            synthesis.program("espeak-ng")
        except NotHere as error:
            log.warning("no voice but English ones", why=str(error))
        await opened()
        await synthesis.warm()
        await asyncio.get_running_loop().create_future()

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        """GET: words in and sound out, until the caller's end and the last word."""
        try:
            output = formats.of(request.query.get("format", "OggOpus"))
            voice = self._voice(request.query.get("voice", ""))
        except Refused as reason:
            raise web.HTTPBadRequest(text=str(reason)) from None
        socket = web.WebSocketResponse(autoping=False, timeout=CLOSE_S, max_msg_size=moshi.MAX_BYTES, compress=False)
        socket.headers[VOICE] = str(voice)
        await socket.prepare(request)
        if request.transport:
            below = request.transport.get_extra_info("socket")
            below.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BYTES)
        self.figures.add("py_connect")
        with self._slot() as has_slot:
            try:
                if has_slot:
                    await self._hold(socket, output, voice)
                else:
                    await _fail(socket, output, moshi.NO_CHANNELS, 1013)
            except (_Left, TimeoutError, ConnectionError):
                if request.transport:
                    request.transport.abort()
        return socket

    async def _hold(self, socket: web.WebSocketResponse, output: formats.Output, voice: Voice) -> None:
        """Raises _Left, TimeoutError, ConnectionError for a caller there is no more to say to."""
        try:
            async with asyncio.timeout(SEND_S):
                for frame in output.begin():
                    await socket.send_bytes(frame)
            await _Reply(self, socket, output, voice).run()
        except PlanariaError as error:
            self.figures.add("tts_failures")
            log.warning("a reply broke off", voice=str(voice), why=str(error))
            await _fail(socket, output, str(error), 1008 if isinstance(error, Refused) else 1011)
        else:
            await socket.close()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        """POST: a whole text, answered as a file that is heard while it is made."""
        with self._slot() as has_slot:  # before the body: a slot bounds how many are held in memory
            if not has_slot:
                return web.json_response({"error": moshi.NO_CHANNELS}, status=503)
            try:
                whole = msgspec.json.decode(await door.body(request), type=Whole)
                voice = self._voice(whole.voice)
                content_type, output = formats.file(whole.format)
            except (msgspec.DecodeError, UnicodeError, RecursionError, Refused) as error:
                return web.json_response({"error": str(error)[:300]}, status=400)
            response = web.StreamResponse(headers={"Content-Type": content_type, VOICE: str(voice)})
            return await self._answer(File(request, response, output), whole.text, voice)

    def _voice(self, name: str) -> Voice:
        """Who speaks for this name; once said, if that is somebody else. Raises Refused."""
        voice, name = voices.of(name), name[:MOST_NAMES]
        if name and not voices.is_ours(name) and name not in self._replaced and len(self._replaced) < MOST_NAMES:
            self._replaced.add(name)
            log.info("a voice that is not here; one of ours speaks", asked_for=name, speaks=str(voice))
        return voice

    async def _answer(self, file: File, text: str, voice: Voice) -> web.StreamResponse:
        clauses, track = Clauses(), Track()
        try:
            for clause in clauses.feed(text) + clauses.end():
                await file.write(await self.say(voice, track, clause))
            await file.write(track.end())
            await file.end()
        except (PlanariaError, TimeoutError) as error:
            if not file.response.prepared:
                return web.json_response({"error": str(error)}, status=400 if isinstance(error, Refused) else 503)
            self.figures.add("tts_failures")
            raise  # the answer breaks off in the middle: better than one that looks whole
        return file.response

    async def say(self, voice: Voice, track: Track, clause: Clause) -> list[Step]:
        """Have a clause spoken, as a part of a track. Raises NotHere, SynthesisFailed, Refused."""
        began = time.monotonic()
        async with self._turns:
            speech = await synthesis.speak(voice, clause.words)
        self.figures.observe("py_model_step_duration", time.monotonic() - began)
        self.figures.add("tts_words", len(clause.words))
        steps = track.add(speech.pcm, clause.words, speech.words, clause.pause_s)
        self.figures.add("py_total_steps", len(steps))
        return steps

    def _used(self) -> int:
        return int(self.figures.of("py_open_channels"))

    @contextmanager
    def _slot(self) -> Iterator[bool]:
        """One of those there are, if one is free."""
        if self._used() >= self._slots:
            self.figures.add("tts_refused")
            yield False
            return
        self.figures.add("py_open_channels")
        try:
            yield True
        finally:
            self.figures.add("py_open_channels", -1)


class _Reply:
    """One WebSocket with a slot."""

    def __init__(self, service: Tts, socket: web.WebSocketResponse, output: formats.Output, voice: Voice) -> None:
        self._service, self._socket, self._output, self._voice = service, socket, output, voice
        self._texts: asyncio.Queue[str | None] = asyncio.Queue(WAITING)
        self._track = Track()
        self._is_ended = False  # by the caller's Eos

    async def run(self) -> None:
        """Until the last word is spoken. Raises _Left, TimeoutError, Refused, NotHere, SynthesisFailed."""
        tasks = [asyncio.create_task(each) for each in (self._read(), self._speak(), self._ping())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:  # only who speaks ends without raising
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._service.figures.observe(
                "py_model_connection_num_steps", self._track.seconds * moshi.RATE / moshi.STEP
            )

    async def _read(self) -> None:
        async for data in self._frames_in():
            match moshi.decode(data, moshi.TO_TTS):
                case moshi.Text(text):
                    await self._texts.put(text)
                case moshi.Eos():
                    await self._texts.put(None)
                    break
                case moshi.Voice():
                    raise Refused("voices by embeddings are not spoken here: name one by ?voice=")
        self._is_ended = True
        async for _ in self._frames_in():
            pass  # nothing is said after the end

    async def _frames_in(self) -> AsyncIterator[bytes | str]:
        """What the caller says. One that pings are not answered by, or who says nothing for long, is gone."""
        until = time.monotonic() + WORDS_S
        while self._is_ended or time.monotonic() < until:
            async with asyncio.timeout(None if self._is_ended else ALIVE_S):  # who plays as they read answers late
                frame = await self._socket.receive()
            if frame.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                until = time.monotonic() + WORDS_S
                yield frame.data
            elif frame.type == WSMsgType.PING:
                async with asyncio.timeout(SEND_S):
                    await self._socket.pong(frame.data)
            elif frame.type != WSMsgType.PONG:
                raise _Left
        raise _Left

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_S)
            async with asyncio.timeout(SEND_S):
                await self._socket.ping()

    async def _speak(self) -> None:
        clauses = Clauses()
        async for text in self._said():
            for clause in clauses.feed(text):
                await self._send(await self._service.say(self._voice, self._track, clause))
        for clause in clauses.end():
            await self._send(await self._service.say(self._voice, self._track, clause))
        await self._send(self._track.end())
        await self._frames(self._output.end())

    async def _said(self) -> AsyncIterator[str]:
        while (text := await self._texts.get()) is not None:
            yield text

    async def _send(self, steps: list[Step]) -> None:
        for step in steps:
            frames = [frame for word in step.words for frame in self._output.word(word)]
            await self._frames(frames + self._output.sound(step.pcm))
            await asyncio.sleep(0)  # others are spoken for, too, though nothing here waits

    async def _frames(self, frames: list[bytes]) -> None:
        for frame in frames:
            async with asyncio.timeout(SEND_S):
                await self._socket.send_bytes(frame)


async def _fail(socket: web.WebSocketResponse, output: formats.Output, why: str, code: int) -> None:
    """Say why, and close."""
    async with asyncio.timeout(SEND_S):
        for frame in output.failed(why):
            await socket.send_bytes(frame)
        await socket.close(code=code, message=why.encode()[:MAX_REASON])
