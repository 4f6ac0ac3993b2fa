"""The leader's side of its children: each is born for one session, connects to a socket of ours, says who it is."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import msgspec

from procs import bus, log
from procs.errors import LinkLost
from procs.speech.stt import frames

ENDPOINT = "speech_stt.children"
BIRTH_S = 10.0
WINDOW = 1024 * 1024  # bytes on their way to one child: nine seconds of sound; then its caller is not read from
STUCK_S = 30.0  # a child that gets through nothing for so long is ended
LOOK_S = 1.0


class Brood(Protocol):
    """What brood.hatch gives a leader."""

    def fork(self, child: str, spec: bytes) -> None:
        """Have a child born. Raises ZygoteLost."""

    def kill(self, child: str) -> None:
        """Have one ended. Raises ZygoteLost."""

    def watch(
        self, ready: Callable[[], None], born: Callable[[str, int], None], ended: Callable[[str, int], None]
    ) -> Coroutine[Any, Any, Any]:
        """Tell of all of them, for ever."""


class Child:
    """One that lives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kill: Callable[[], None]) -> None:
        self._reader, self._writer, self.kill = reader, writer, kill
        self._on_way: deque[int] = deque()  # bytes of each frame that is not DONE, its head with them
        self._bytes = 0  # of them all
        self._moved_at = 0.0
        self._room = asyncio.Event()

    async def send(self, kind: int, data: bytes) -> None:
        """Hand it something, once it has room for it. Raises LinkLost."""
        while self._bytes > WINDOW:
            self._room.clear()
            await self._room.wait()
        if not self._on_way:
            self._moved_at = time.monotonic()
        self._on_way.append(len(data) + frames.HEAD.size)
        self._bytes += self._on_way[-1]
        try:
            self._writer.write(frames.frame(kind, data))
            await self._writer.drain()
        except ConnectionError:
            raise LinkLost("the recogniser of this session is gone") from None

    async def receive(self) -> tuple[int, bytes]:
        """What it says next. Raises LinkLost."""
        try:
            size, kind = frames.HEAD.unpack(await self._reader.readexactly(frames.HEAD.size))
            data = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise LinkLost("the recogniser of this session is gone") from None
        if kind == frames.DONE and self._on_way:
            self._bytes -= self._on_way.popleft()
            self._room.set()
        self._moved_at = time.monotonic()
        return kind, data

    async def watch(self) -> None:
        """Raises LinkLost once it gets through nothing any more."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._on_way and time.monotonic() - self._moved_at > STUCK_S:
                raise LinkLost(f"the recogniser of this session got through nothing for {STUCK_S:g} s")


class Children:
    """All of them."""

    def __init__(self, brood: Brood, run_dir: Path, pause_s: float) -> None:
        self._brood, self._pause_s = brood, pause_s
        self._path = Path(bus.address(run_dir, ENDPOINT).removeprefix("ipc://"))
        self._ids = itertools.count()
        self._awaited: dict[str, asyncio.Future[Child]] = {}

    async def run(self, ready: Callable[[], None]) -> None:
        """For ever. Raises ZygoteLost."""
        self._path.unlink(missing_ok=True)  # of the leader before us
        async with await asyncio.start_unix_server(self._met, self._path):
            await self._brood.watch(ready, lambda child, pid: None, self._ended)

    async def new(self) -> Child:
        """One for a session. Raises LinkLost, ZygoteLost."""
        name = str(next(self._ids))
        met: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._awaited[name] = met
        spec = frames.ChildSpec(name, str(self._path), self._pause_s)
        self._brood.fork(name, msgspec.msgpack.encode(spec))
        try:
            async with asyncio.timeout(BIRTH_S):
                return await met
        except BaseException as error:
            self._brood.kill(name)
            if isinstance(error, TimeoutError):
                raise LinkLost(f"no recogniser within {BIRTH_S:g} s") from None
            raise
        finally:
            del self._awaited[name]

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        child = Child(reader, writer, lambda: None)
        try:
            async with asyncio.timeout(BIRTH_S):
                _, said = await child.receive()
        except (LinkLost, TimeoutError):
            writer.close()
            return
        name = said.decode(errors="replace")

        def kill() -> None:
            writer.close()
            self._brood.kill(name)

        child.kill = kill
        met = self._awaited.get(name)
        if met is None or met.done():
            kill()
        else:
            met.set_result(child)

    def _ended(self, child: str, status: int) -> None:
        met = self._awaited.get(child)
        if met is not None and not met.done():
            met.set_exception(LinkLost("the recogniser of this session died at its birth"))
        if status > 0:
            log.warning("the recogniser of a session ended", status=status)
