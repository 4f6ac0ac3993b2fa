"""Two ends of one connection, joined by queues."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from procs.errors import LinkLost, Refused, StreamReset
from procs.streams import Link, Stream
from procs.wire.mux1 import Code, Head, MuxLimits, Open

GET = Open("http", "GET", "/")


@contextlib.asynccontextmanager
async def joined(accept: Callable[[Stream], None], limits: MuxLimits | None = None) -> AsyncIterator[tuple[Link, Link]]:
    """(hub, device), whose messages go to and fro until the block ends."""
    limits = limits or MuxLimits()
    ways: tuple[asyncio.Queue[bytes], asyncio.Queue[bytes]] = asyncio.Queue(4), asyncio.Queue(4)
    hub = Link(ways[0].put, opens="odd", ours=limits, theirs=limits)
    device = Link(ways[1].put, opens="even", ours=limits, theirs=limits, accept=accept)

    async def carry(queue: asyncio.Queue[bytes], to: Link) -> None:
        while True:
            to.received(await queue.get())

    works = (hub.write(), device.write(), carry(ways[0], device), carry(ways[1], hub))
    tasks = [asyncio.create_task(work) for work in works]
    try:
        async with asyncio.timeout(20):
            yield hub, device
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def whole(stream: Stream) -> bytes:
    """All that is still to come."""
    found = bytearray()
    while chunk := await stream.read():
        found += chunk.data
    return bytes(found)


def test_a_request_and_its_answer() -> None:
    async def serve(stream: Stream) -> None:
        body = await whole(stream)
        stream.send_head(Head(200, [("X", "y")]))
        await stream.write(body * 3)
        stream.finish()

    async def run() -> None:
        async with joined(lambda stream: tasks.append(asyncio.create_task(serve(stream)))) as (hub, device):
            stream = hub.open(GET)
            body = bytes(range(256)) * 4000
            await stream.write(body)
            stream.finish()
            assert await stream.head() == Head(200, [("X", "y")])
            assert await whole(stream) == body * 3
            assert hub.streams == device.streams == 0

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(run())


def test_who_does_not_read_stops_nobody_else() -> None:
    """More streams stall than the session's credit could carry, if windows were not kept within it."""

    async def serve(stream: Stream) -> None:
        with contextlib.suppress(StreamReset):
            stream.send_head(Head(200))
            while True:
                await stream.write(bytes(64 * 1024))

    async def run() -> None:
        async with joined(lambda stream: tasks.append(asyncio.create_task(serve(stream)))) as (hub, _):
            stalled = [hub.open(GET) for _ in range(63)]
            for stream in stalled[:8]:
                for _ in range(40):  # so that its window has grown
                    assert await stream.read()
            await asyncio.sleep(0.1)
            quick = hub.open(GET)
            for _ in range(60):
                assert await quick.read()
            quick.reset(Code.CANCEL)
            with pytest.raises(StreamReset):
                await whole(quick)
        for task in tasks:
            task.cancel()

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(run())


def test_a_lost_connection_and_too_many_streams() -> None:
    async def run() -> None:
        async with joined(lambda stream: None, MuxLimits(max_streams=2)) as (hub, _device):
            first, _ = hub.open(GET), hub.open(GET)
            with pytest.raises(Refused, match="open already"):
                hub.open(GET)
            hub.lost("cut")
            with pytest.raises(LinkLost, match="cut"):
                await first.head()
            with pytest.raises(LinkLost):
                hub.open(GET)

    asyncio.run(run())
