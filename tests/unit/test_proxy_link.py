"""The data connection against hubs that fall silent, or take nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from procs import carrier
from procs.errors import LinkLost
from procs.messages.work import TicketGrant
from procs.proxy import link
from procs.streams.link import Link
from procs.streams.stream import Stream
from procs.wire.mux1 import SUBPROTOCOL, MuxLimits, Open
from tests.joined import one_by_one
from tests.rig import free_port


@contextlib.asynccontextmanager
async def hub(handle: Callable[[web.WebSocketResponse], Awaitable[None]]) -> AsyncIterator[str]:
    """A data endpoint. Yields its address."""

    async def take(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer good":
            return web.Response(status=401)
        ws = web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False)
        await ws.prepare(request)
        await handle(ws)
        return ws

    app, port = web.Application(), free_port()
    app.router.add_get("/ws/data", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"ws://127.0.0.1:{port}/ws/data"
    finally:
        await runner.cleanup()


async def carried(url: str, accept: Callable[[Stream], None], ticket: str = "good", limit_s: float = 5.0) -> str:
    """Why a connection ended."""
    async with asyncio.timeout(limit_s):
        return await link.serve(TicketGrant(1, url, ticket, "device-1"), accept)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "QUIET_S", 0.2)
    monkeypatch.setattr(carrier, "DEAD_S", 0.7)
    monkeypatch.setattr(carrier, "SEND_LIMIT_S", 0.7)


def nobody(stream: Stream) -> None:
    """Takes streams and does nothing with them."""


def test_a_silent_hub_is_left() -> None:
    async def stand_still(ws: web.WebSocketResponse) -> None:
        await asyncio.sleep(3)

    async def run() -> None:
        async with hub(stand_still) as url:
            assert "silent" in await carried(url, nobody)

    asyncio.run(run())


def test_a_quiet_hub_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "DEAD_S", 1.5)  # what a busy machine stands still for is no silence

    async def answer_pings(ws: web.WebSocketResponse) -> None:
        ours = Link(one_by_one(ws.send_bytes), opens="odd", ours=MuxLimits(), theirs=MuxLimits())
        writing = asyncio.create_task(ours.write())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                async for message in ws:
                    ours.received(message.data)
        writing.cancel()
        await ws.close(code=1012, message=b"enough")

    async def run() -> None:
        began = asyncio.get_running_loop().time()
        async with hub(answer_pings) as url:
            assert "enough" in await carried(url, nobody)
        assert asyncio.get_running_loop().time() - began > 1.9

    asyncio.run(run())


def test_a_hub_that_takes_nothing_is_left() -> None:
    """It goes on talking, so only what it does not read gives it away."""

    async def talk_on(ws: web.WebSocketResponse) -> None:
        frames: asyncio.Queue[bytes] = asyncio.Queue()
        ours = Link(one_by_one(frames.put), opens="odd", ours=MuxLimits(session_credit=2**30), theirs=MuxLimits())
        writing = asyncio.create_task(ours.write())
        ours.open(Open("http", "GET", "/")).finish()
        for _ in range(2):
            await ws.send_bytes(await frames.get())
        for _ in range(100):
            await ws.send_bytes(bytes([0xA1, 4, 0, 0, 0, 0, 0, 1]) + (1_000_000).to_bytes(4, "big"))
            await ws.send_bytes(bytes([0xA1, 4, 0, 0, 0, 0, 0, 0]) + (1_000_000).to_bytes(4, "big"))
            await asyncio.sleep(0.05)
        writing.cancel()

    async def write_on(stream: Stream) -> None:
        with contextlib.suppress(LinkLost):
            while True:
                await stream.write(bytes(64 * 1024))

    async def run() -> None:
        tasks: list[asyncio.Task[None]] = []
        async with hub(talk_on) as url:
            said = await carried(url, lambda stream: tasks.append(asyncio.create_task(write_on(stream))), limit_s=10)
            assert "took nothing" in said
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_bad_ticket_and_nobody_there() -> None:
    async def never(ws: web.WebSocketResponse) -> None:
        raise AssertionError

    async def run() -> None:
        async with hub(never) as url:
            with pytest.raises(LinkLost, match="401"):
                await carried(url, nobody, ticket="bad")
        with pytest.raises(LinkLost, match="no data connection"):
            await carried(f"ws://127.0.0.1:{free_port()}/ws/data", nobody)

    asyncio.run(run())
