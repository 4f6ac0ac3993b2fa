"""WebSockets through a Worker to servers of another library's making."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from procs.errors import StreamReset
from procs.streams.stream import Stream
from procs.wire.mux1 import FIN, MORE, TEXT, Code
from tests import proxying
from tests.proxying import Hub, saying, serving, upstream
from tests.rig import free_port

RULES = ("GET /ws?a ws", "GET /page")


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


@contextlib.asynccontextmanager
async def through(handler: Callable[[ServerConnection], Awaitable[None]], *spoken: str) -> AsyncIterator[Hub]:
    """The hub's end of a proxy in front of a WebSocket server."""
    names = [Subprotocol(each) for each in spoken] or None
    async with serve(handler, "127.0.0.1", 0, subprotocols=names, max_size=2**22) as server:
        at = next(iter(server.sockets)).getsockname()[1]
        async with proxying.hub(upstream(at, *RULES)) as hub:
            yield hub


async def refusal(stream: Stream) -> int:
    """The code of the reset that comes in the place of an answer."""
    with pytest.raises(StreamReset) as error:
        await stream.head()
    return error.value.code


async def message(stream: Stream) -> tuple[bytes, int]:
    """The next message and its flags."""
    pieces = []
    while chunk := await stream.read():
        pieces.append(bytes(chunk.data))
        if not chunk.flags & MORE:
            return b"".join(pieces), chunk.flags
    raise AssertionError("ended in the middle")


def test_messages_keep_their_bounds_and_kinds() -> None:
    async def echo(server: ServerConnection) -> None:
        assert server.request and server.request.path == "/ws?a=b%20c" and "Origin" not in server.request.headers
        async for each in server:
            await server.send(each)

    async def work() -> None:
        async with through(echo, "chat") as hub:
            offered = [("Sec-WebSocket-Protocol", "other, chat"), ("Origin", "https://hub.example")]
            stream = hub.open("GET", "/up/ws?a=b%20c", offered, kind="ws")
            head = await stream.head()
            assert (head.status, head.subprotocol) == (101, "chat")
            for data, flags in (
                (b"short", TEXT), (b"", TEXT), (b"\x00\xff", 0), (os.urandom(700_000), 0), ("ü€😀".encode() * 9, TEXT),
            ):  # fmt: skip
                await stream.write(data, flags)
                assert await message(stream) == (data, flags)
            for _ in range(300):
                await stream.write(b"many", TEXT)
            assert [await message(stream) for _ in range(300)] == [(b"many", TEXT)] * 300
            stream.finish((4321).to_bytes(2, "big") + b"bye")
            assert await message(stream) == ((4321).to_bytes(2, "big"), FIN)
            await asyncio.sleep(0.05)
            assert len(hub.worker) == 0 and hub.link.streams == 0

    run(work)


@pytest.mark.parametrize(("code", "seen"), [(1000, 1000), (4001, 4001), (1011, 1011), (None, 1012)])
def test_the_upstream_ends_it(code: int | None, seen: int) -> None:
    async def end(server: ServerConnection) -> None:
        await server.send("hello")
        if code is None:
            server.transport.abort()
        else:
            await server.close(code, "reason")

    async def work() -> None:
        async with through(end) as hub:
            stream = hub.open("GET", "/up/ws", kind="ws")
            assert (await stream.head()).status == 101
            assert await message(stream) == (b"hello", TEXT)
            assert await message(stream) == (seen.to_bytes(2, "big"), FIN)
            stream.finish()

    run(work)


def test_a_viewer_who_is_gone_closes_it_at_once() -> None:
    closed = asyncio.Event()

    async def wait(server: ServerConnection) -> None:
        await server.wait_closed()
        closed.set()

    async def work() -> None:
        async with through(wait) as hub:
            stream = hub.open("GET", "/up/ws", kind="ws")
            await stream.head()
            stream.reset(Code.CANCEL)
            await asyncio.wait_for(closed.wait(), 1)

    run(work)


def test_what_is_no_websocket() -> None:
    async def work() -> None:
        refused = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/ws\r\nContent-Length: 0\r\n\r\n"
        wrong = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
        for answer in (refused, moved, wrong, b"nonsense\r\n\r\n"):
            async with serving(saying(answer)) as port, proxying.hub(upstream(port, *RULES)) as hub:
                stream = hub.open("GET", "/up/ws", kind="ws", timeout_ms=500)
                await refusal(stream)
        async with serving(saying(b"")) as port, proxying.hub(upstream(port, *RULES)) as hub:
            for method, path, kind, headers, status in (
                ("GET", "/up/page", "ws", [], 403),
                ("GET", "/up/ws", "http", [], 403),
                ("POST", "/up/ws", "ws", [], 403),
                ("GET", "/up/ws?b=c", "ws", [], 403),
                ("GET", "/up/ws", "ws", [("Sec-WebSocket-Protocol", "a b")], 400),
            ):
                stream = hub.open(method, path, headers, kind=kind)
                assert (await stream.head()).status == status

    run(work)


def test_an_upstream_that_comes_later() -> None:
    async def greet(server: ServerConnection) -> None:
        await server.send("late")

    async def work() -> None:
        port = free_port()
        async with proxying.hub(upstream(port, *RULES)) as hub:
            stream = hub.open("GET", "/up/ws", kind="ws")
            await asyncio.sleep(0.3)
            async with serve(greet, "127.0.0.1", port):
                assert (await stream.head()).status == 101
                assert await message(stream) == (b"late", TEXT)
            late = hub.open("GET", "/up/ws", kind="ws", timeout_ms=300)
            assert await refusal(late) == Code.NOT_SENT

    run(work)


async def flood(stream: Stream, piece: bytes = bytes(65536), count: int = 100) -> None:
    for _ in range(count):
        await stream.write(piece, MORE)
    await stream.read()


def test_a_message_without_end() -> None:
    async def listen(server: ServerConnection) -> None:
        async for _ in server:
            pass

    async def work() -> None:
        async with through(listen) as hub:
            stream = hub.open("GET", "/up/ws", kind="ws")
            await stream.head()
            with pytest.raises(StreamReset, match="too large"):
                await flood(stream)

    run(work)


def test_a_message_of_nothing_but_pieces() -> None:
    async def listen(server: ServerConnection) -> None:
        async for _ in server:
            pass

    async def work() -> None:
        async with through(listen) as hub:
            stream = hub.open("GET", "/up/ws", kind="ws")
            await stream.head()
            with pytest.raises(StreamReset, match="too large"):
                await flood(stream, b"", 100_000)

    run(work)
