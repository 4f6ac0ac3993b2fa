"""One backend's connection: what it says is done, what is heard goes to it, and it is left when it falls silent."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import time
from collections.abc import Coroutine
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from procs import log
from procs.audio_io.session import Action, Finish, Play, Send, Session, Wrong
from procs.audio_io.sound import Heard, Sound
from procs.errors import Refused
from procs.media.opus import Decoder, Encoder
from procs.wire import realtime as wire

PING_EVERY_S = 5.0
PONG_S = 5.0  # so that one that is gone is sent the microphone for 10 s at most
SEND_S = 5.0  # a backend that reads nothing for so long is as good as gone
CLOSE_S = 1.0
MAX_WAITING = 64  # frames that were not sent yet: a second of the microphone and what else there is to say
MAX_TOLD = 1024  # of all frames: who makes us say more than it reads is left
IN_A_ROW = 16  # packets that are decoded before others get their turn: a flood of them must not keep us from hearing
FRAME_MS: Final = 20
BITRATE = 24_000


class Link:
    """The holder of the device, or who wants to be it."""

    def __init__(self, ws: ServerConnection, sound: Sound, name: str) -> None:
        self._ws, self._sound, self._name = ws, sound, name
        self.peer = _address(ws.remote_address)  # now: with TLS it is not known any more once the connection is over
        self.session = Session(ours=ws.subprotocol == wire.OURS, serial=random.getrandbits(32))
        self.since = time.monotonic()
        self.sent = self.received = self.dropped = 0  # packets
        self._encoder, self._decoder = Encoder(bitrate=BITRATE, frame_ms=FRAME_MS), Decoder()
        self._outbox = collections.deque[str | bytes]()
        self._waiting = asyncio.Event()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._done = asyncio.Event()

    @property
    def protocol(self) -> str:
        """What is spoken with it."""
        return wire.OURS if self.session.is_ours else wire.PUBLISHED

    async def run(self, before: int) -> str:
        """Be the holder until it is over; returns why. What is buffered of it then is not heard any more. `before`: as
        Session.begin has it."""
        self._sound.flush()
        self._put(self.session.begin(self._name, self._sound.state, before))
        works: list[Coroutine[Any, Any, str]] = [self._read(), self._write(), self._watch()]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait([*tasks, self._over], return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._sound.flush()
            self._done.set()

    async def answers(self, within_s: float) -> bool:
        """Whether the other side is alive."""
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(within_s):
                await (await self._ws.ping())
            return not self._over.done()
        return False

    async def end(self, why: str) -> None:
        """End it now. Its socket is not closed by asking: nobody may be there to answer. Raises TimeoutError."""
        if not self._over.done():
            self._over.set_result(why)
        self._ws.transport.abort()
        async with asyncio.timeout(CLOSE_S):
            await self._done.wait()

    async def turn_away(self, code: str, why: str) -> None:
        """Say why this one can't be the holder, and close."""
        event = wire.Error(error=wire.Problem(type="fatal", code=code, message=why))
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(CLOSE_S):
                await self._ws.send(wire.encode(event))
                await self._ws.close(1013, why)
        self._ws.transport.abort()

    def hear(self, heard: Heard) -> None:
        """20 ms of the microphone."""
        for packet in self._encoder.encode(heard.pcm):
            samples = FRAME_MS * wire.RATE // 1000
            if len(self._outbox) < MAX_WAITING:
                self.sent += 1
                self._put(self.session.microphone(packet, samples))
            else:
                self.dropped += 1
                self.session.skipped(samples)

    def look(self) -> None:
        """Tell what has changed."""
        self._put(self.session.looked(self._sound.cursor, self._sound.state, time.monotonic()))

    def _put(self, sends: list[Send]) -> None:
        self._outbox.extend(send.frame for send in sends)
        if len(self._outbox) > MAX_TOLD and not self._over.done():
            self._over.set_result("it does not read what it makes us say")
        if sends:
            self._waiting.set()

    async def _write(self) -> str:
        while True:
            if not self._outbox:
                self._waiting.clear()
                await self._waiting.wait()
            try:
                async with asyncio.timeout(SEND_S):
                    await self._ws.send(self._outbox.popleft())
            except TimeoutError:
                return f"it has read nothing for {SEND_S:g} s"
            except ConnectionClosed as closed:
                return _words(closed)

    async def _watch(self) -> str:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            if not await self.answers(PONG_S):
                return f"it has not answered a ping for {PONG_S:g} s"

    async def _read(self) -> str:
        count = 0
        try:
            while True:
                frame = await self._ws.recv()
                for action in self.session.received(frame, time.monotonic()):
                    self._do(action)
                    count += 1
                    if count % IN_A_ROW == 0:
                        await asyncio.sleep(0)
                self.look()
        except ConnectionClosed as closed:
            return _words(closed)

    def _do(self, action: Action) -> None:
        sound = self._sound
        match action:
            case Play():
                self._play(action)
            case Send():
                self._put([action])
            case Wrong():
                log.warning("not taken from the backend", why=action.why)
            case Finish():
                sound.finish()
            case wire.Pause():
                sound.pause()
            case wire.Resume():
                sound.resume()
            case wire.Flush():
                sound.flush()
            case wire.Mute():
                sound.mute(action.muted)
            case wire.Volume():
                sound.volume(action.percent)

    def _play(self, its: Play) -> None:
        self.received += 1
        try:
            pcm = self._decoder.decode(its.packet)
        except Refused as reason:
            for action in self.session.refuse(reason, time.monotonic()):
                self._do(action)
            return
        self._sound.play(pcm, response=its.response, timestamp=its.timestamp, first=its.first)


def _words(closed: ConnectionClosed) -> str:
    frame = closed.rcvd or closed.sent
    return f"closed with {frame.code} {frame.reason}".strip() if frame else "the connection broke"


def _address(remote: tuple[Any, ...] | None) -> str:
    host, port = (remote or ("?", 0))[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
