"""Shows a viewer live pictures: reads them as fast as they come, and leaves out what the viewer is too slow for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from procs import log
from procs.proxy.live import MAX_WAITING, Backlog, Splitter
from procs.proxy.unit import Unit
from procs.proxy.upstream import Answer
from procs.streams.stream import Stream


class Outlet:
    """What waits for one viewer, and who hands it on."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._backlog = Backlog()
        self._changed = asyncio.Event()
        self._is_ended = False
        stream.max_queued = 0  # what has not gone out waits in the backlog, where it may be left out

    async def put(self, unit: Unit) -> None:
        """Something new. Waits only where too much has come that must not be left out."""
        self._backlog.put(unit, self._loop.time())
        self._changed.set()
        while self._backlog.size > MAX_WAITING:
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        """Nothing more will come."""
        self._is_ended = True
        self._changed.set()

    async def hand_on(self) -> None:
        """Write to the stream until all has been written. Raises StreamReset or LinkLost."""
        while True:
            while self._backlog:
                data, flags = self._backlog.pop()
                self._changed.set()
                await self._stream.write(data, flags)
            if self._is_ended:
                break
            self._changed.clear()
            await self._changed.wait()
        if self._backlog.dropped:
            log.info("left out for a slow viewer", pictures=self._backlog.dropped, path=self._stream.opening.path)


async def both(*works: Awaitable[None]) -> None:
    """Run several until all have ended; what ends one ends all."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def show(stream: Stream, splitter: Splitter, answer: Answer) -> None:
    """Hand on the body of an answer that shows pictures. Raises UpstreamFailed, StreamReset, LinkLost."""
    outlet = Outlet(stream)

    async def read() -> None:
        while data := await answer.read(None):
            for unit in splitter.feed(data):
                await outlet.put(unit)
        if rest := splitter.rest():
            await outlet.put(Unit(rest, False, False))
        outlet.end()

    await both(read(), outlet.hand_on())
    stream.finish()
