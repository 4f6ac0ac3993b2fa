"""Standard input to the peer, what the peer sends to standard output: bytes as they are, or one JSON value a line.

Between two of our own command lines nothing is lost when the connection is (procs/agent/pipe.py), and each side hears
of the other's end of file. Any other agent gets messages as published: bytes, or one JSON value each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from procs.agent.channel import Channel
from procs.agent.pipe import Pipe
from procs.agent.session import PeerSession
from procs.errors import LinkLost, OutputClosed, PlanariaError, Refused
from scripts.peer.ends import Lines, Stdin, Stdout

PATIENCE_S = 60.0  # for a connection that was lost to come back
FLUSH_S = 30.0
PUBLISHED_CHUNK = 16 * 1024
MAX_LINE = 1024 * 1024


class JsonLines:
    """Bytes that have to be lines of JSON; gives whole lines on."""

    def __init__(self, whose: str) -> None:
        self._whose, self._left, self._number = whose, b"", 0

    def take(self, data: bytes) -> bytes:
        """The lines that are whole now. b"": the last has no end. Raises Refused."""
        *lines, self._left = (self._left + (data or b"\n" * bool(self._left))).split(b"\n")
        if len(self._left) > MAX_LINE:
            raise Refused(f"{self._whose}: line {self._number + 1} is over {MAX_LINE} bytes")
        for line in lines:
            self._number += 1
            try:
                json.loads(line or b"0")
            except (ValueError, RecursionError) as error:
                raise Refused(f"{self._whose}: line {self._number} is no JSON: {error}") from None
        return b"".join(line + b"\n" for line in lines if line.strip())


def as_they_are(data: bytes) -> bytes:
    """What `JsonLines.take` is for JSON."""
    return data


class Piping:
    """One pipe over one channel. `ours` and `theirs` see all that goes and comes."""

    def __init__(self, channel: Channel, stdin: Stdin, stdout: Stdout, *, is_json: bool) -> None:
        self._channel, self._stdin, self._stdout = channel, stdin, stdout
        self._ours: Callable[[bytes], bytes] = JsonLines("standard input").take if is_json else as_they_are
        self._theirs: Callable[[bytes], bytes] = JsonLines("the peer").take if is_json else as_they_are
        self._is_json = is_json
        self._pipe, self._wake, self._room = Pipe(), asyncio.Event(), asyncio.Event()
        self._came: asyncio.Queue[bytes] = asyncio.Queue()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        channel.on("open", self._connected)
        channel.on("message", self._take)
        channel.on("close", self._wake.set)
        if channel.readyState == "open":
            self._connected()

    async def run(self) -> None:
        """Until both directions have ended. Raises LinkLost, Refused, OutputClosed."""
        works = [asyncio.create_task(work) for work in (self._feed(), self._drain(), self._send())]
        try:
            waiting = {self._failed, *works}
            while not (self._pipe.is_sent and self._pipe.is_over and works[2].done()):
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                waiting -= done
                for each in done:
                    each.result()
        except PlanariaError as error:
            await self._break(error)
            raise
        finally:
            for work in works:
                work.cancel()

    async def _break(self, error: PlanariaError) -> None:
        """The other side can't know by itself."""
        with contextlib.suppress(PlanariaError):
            if isinstance(error, OutputClosed | Refused):
                self._pipe.broken(str(error))
                while (message := self._pipe.next()) is not None and isinstance(message, str):
                    self._channel.send(message)
                await self._channel.flushed(1.0)

    def _connected(self) -> None:
        self._pipe.on_connected()
        self._wake.set()

    def _take(self, message: str | bytes) -> None:
        try:
            if new := self._pipe.take(message):
                self._came.put_nowait(new)
        except (Refused, LinkLost) as error:
            if not self._failed.done():
                self._failed.set_exception(error)
        self._room.set()
        self._wake.set()
        if self._pipe.is_over and self._stdin.is_terminal:
            self._pipe.end()  # who types is not waited for once nobody answers any more

    async def _feed(self) -> None:
        while data := await self._read():
            while not self._pipe.has_room:
                self._room.clear()
                await self._room.wait()
            self._pipe.write(self._ours(data))
            self._wake.set()
        self._pipe.write(self._ours(b""))
        self._pipe.end()
        self._wake.set()

    async def _read(self) -> bytes:
        """Nothing from a terminal that is not there for typing."""
        return b"" if self._stdin.is_terminal and not self._is_json else await self._stdin.read()

    async def _drain(self) -> None:
        while True:
            data = await self._came.get()
            if whole := self._theirs(data):
                await self._stdout.write(whole)
            self._pipe.handed(len(data))
            self._wake.set()

    async def _send(self) -> None:
        while not (self._pipe.is_sent and self._pipe.is_over):
            await self._opened()
            self._wake.clear()
            with contextlib.suppress(LinkLost):
                while (message := self._pipe.next()) is not None:
                    self._channel.send(message)
                    await self._channel.room()
                if not (self._pipe.is_sent and self._pipe.is_over):
                    await self._wait()
        with contextlib.suppress(LinkLost):  # the last word; the other side may have gone already
            while (message := self._pipe.next()) is not None:
                self._channel.send(message)
            await self._channel.flushed(FLUSH_S)

    async def _opened(self) -> None:
        try:
            await self._channel.opened(PATIENCE_S)
        except LinkLost:
            if self._channel.readyState != "closed":
                raise
            raise LinkLost("the peer has ended, in the middle of the pipe") from None

    async def _wait(self) -> None:
        """For something to send; or for a connection that was lost, which is not waited for without end."""
        try:
            async with asyncio.timeout(1.0):
                await self._wake.wait()
        except TimeoutError:
            return


async def published(session: PeerSession, stdin: Stdin, stdout: Stdout, *, is_json: bool) -> None:
    """With an agent that knows nothing of pipes: each message as it comes. Ends when stdin does, after everything was
    acknowledged; at once without any, when the peer leaves. Raises LinkLost: what was on its way may be lost."""
    channel = session.main
    came: asyncio.Queue[bytes | LinkLost | None] = asyncio.Queue()  # None: the peer has closed it

    def take(data: str | bytes) -> None:
        raw = data.encode() if isinstance(data, str) else data
        came.put_nowait(raw + b"\n" if is_json else raw)

    channel.on("message", take)
    channel.on("lost", lambda: came.put_nowait(LinkLost("the connection was lost")))
    channel.on("close", lambda: came.put_nowait(None))
    reading = asyncio.create_task(_publish(channel, stdin, is_json=is_json))
    writing = asyncio.create_task(_write(came, stdout))
    try:
        await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
        if writing.done() or not reading.result():
            await writing
    finally:
        reading.cancel()
        writing.cancel()


async def _write(came: asyncio.Queue[bytes | LinkLost | None], stdout: Stdout) -> None:
    while (what := await came.get()) is not None:
        if isinstance(what, LinkLost):
            raise what
        await stdout.write(what)


async def _publish(channel: Channel, stdin: Stdin, *, is_json: bool) -> int:
    """How many messages there were."""
    count = 0
    lines = Lines(stdin)
    while data := (await lines.read() if is_json else await stdin.read()):
        if isinstance(data, str):
            JsonLines("standard input").take(data.encode())
            messages: list[str | bytes] = [data]
        else:
            messages = [data[at : at + PUBLISHED_CHUNK] for at in range(0, len(data), PUBLISHED_CHUNK)]
        for message in messages:
            channel.send(message)
            await channel.room()
            count += 1
    if count:
        await channel.flushed(FLUSH_S)
    return count
