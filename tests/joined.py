"""The two ends of one mux1 connection in one process, joined by queues, where the network is of no interest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from procs.errors import LinkLost, StreamReset
from procs.streams.link import Link
from procs.streams.stream import Stream
from procs.wire.mux1 import MuxLimits


def one_by_one(send: Callable[[bytes], Awaitable[None]]) -> Callable[[list[bytes]], Awaitable[None]]:
    """A way to send for a Link whose transport takes but one message at a time."""

    async def send_each(messages: list[bytes]) -> None:
        for message in messages:
            await send(message)

    return send_each


class Joined:
    """`hub` and `device`, whose messages go to and fro until `end`. `accept` gets what the hub opens."""

    def __init__(self, accept: Callable[[Stream], None], limits: MuxLimits | None = None) -> None:
        limits = limits or MuxLimits()
        ways: tuple[asyncio.Queue[bytes], asyncio.Queue[bytes]] = asyncio.Queue(4), asyncio.Queue(4)
        self.hub = Link(one_by_one(ways[0].put), opens="odd", ours=limits, theirs=limits)
        self.device = Link(one_by_one(ways[1].put), opens="even", ours=limits, theirs=limits, accept=accept)
        works = (self.hub.write(), self.device.write(), _carry(ways[0], self.device), _carry(ways[1], self.hub))
        self._tasks = [asyncio.create_task(work) for work in works]

    async def end(self) -> None:
        """Carry no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _carry(queue: asyncio.Queue[bytes], to: Link) -> None:
    while True:
        to.received(await queue.get())


async def quietly(work: Awaitable[None]) -> None:
    """Serve a stream until it, or its connection, is over."""
    with contextlib.suppress(StreamReset, LinkLost):
        await work
