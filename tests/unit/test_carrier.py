"""The carrier at the hub's end, behind aiohttp's handshake, against aiohttp's own client; and both ends of ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from unittest import mock

import aiohttp
import pytest
import uvloop
from aiohttp import WSMsgType, web

from procs import carrier
from procs.carrier import Carrier, dial
from procs.errors import LinkLost, Refused
from procs.wire import ws13
from tests.rig import free_port

PROTOCOL = "p"


class Server:
    """The hub's end. `got`: what has come; `carrier` once somebody has connected."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}/"
        self.got: asyncio.Queue[bytes] = asyncio.Queue()
        self.carrier: Carrier | None = None
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def take(self, request: web.Request) -> web.StreamResponse:
        """One connection."""
        handshake = web.WebSocketResponse(protocols=(PROTOCOL,), compress=False)
        await handshake.prepare(request)
        own = Carrier(self._received)
        own.on_lost = request.protocol.connection_lost
        assert request.transport
        own.take_over(request.transport)
        self.carrier = own
        with contextlib.suppress(LinkLost):
            await own.send([b"at once"])  # with the handshake's answer, in one segment perhaps
        self.ended.set_result(await own.over)
        await own.close(*self.ended.result())
        return handshake

    def _received(self, message: memoryview) -> None:
        if bytes(message) == b"break the rules":
            raise Refused("not these")
        self.got.put_nowait(bytes(message))


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[Server]:
    """A hub's end that listens."""
    made = Server()
    app = web.Application()
    app.router.add_get("/", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(made.url.rpartition(":")[2].strip("/"))).start()
    try:
        yield made
    finally:
        await runner.cleanup()


def run(test: Callable[[], object], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Run a test on a loop, within a limit."""

    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()  # type: ignore[misc]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(limited())


LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@LOOPS
def test_another_clients_messages_come_and_go(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def test() -> None:
        async with (
            server() as hub,
            aiohttp.ClientSession() as session,
            session.ws_connect(hub.url, protocols=(PROTOCOL,), max_msg_size=0) as ws,
        ):
            assert (await ws.receive_bytes()) == b"at once"
            messages = [os.urandom(size) for size in (0, 1, 125, 126, 65535, 65536, 1_000_000)]
            for message in messages:
                await ws.send_bytes(message)
            assert [await hub.got.get() for _ in messages] == messages
            assert hub.carrier
            sending = asyncio.create_task(hub.carrier.send(messages))
            assert [await ws.receive_bytes() for _ in messages] == messages
            await sending
            await ws.ping(b"there?")
            await ws.send_bytes(b"after the ping")
            assert await hub.got.get() == b"after the ping"
            await ws.close(code=1001, message=b"enough")
            assert await hub.ended == (1000, "closed by the other side: 1001 enough")

    run(test, loop)


@LOOPS
def test_ours_at_both_ends(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def test() -> None:
        async with server() as hub:
            got: asyncio.Queue[bytes] = asyncio.Queue()
            own = await dial(hub.url.replace("http", "ws"), PROTOCOL, [], lambda m: got.put_nowait(bytes(m)))
            assert await got.get() == b"at once"
            await own.send([b"x" * 100_000] * 20)
            assert sum([len(await hub.got.get()) for _ in range(20)]) == 2_000_000
            await own.close(1012, "replaced")
            assert await hub.ended == (1000, "closed by the other side: 1012 replaced")
            with pytest.raises(LinkLost):
                await own.send([b"too late"])

    run(test, loop)


def test_who_breaks_the_rules_is_told_so() -> None:
    async def test() -> None:
        async with (
            server() as hub,
            aiohttp.ClientSession() as session,
            session.ws_connect(hub.url, protocols=(PROTOCOL,)) as ws,
        ):
            await ws.receive_bytes()
            await ws.send_bytes(b"break the rules")
            await ws.send_bytes(b"and go on")
            assert (await ws.receive()).type is WSMsgType.CLOSE
            assert ws.close_code == 1002
            assert await hub.ended == (1002, "not these")
            assert hub.got.empty()

    run(test)


def test_a_broken_connection_ends_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "CLOSE_LIMIT_S", 0.1)

    async def test() -> None:
        async with server() as hub:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(hub.url.rpartition(":")[2].strip("/")))
            writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Sec-WebSocket-Protocol: p\r\n\r\n"
            )
            assert b"101" in await reader.readuntil(b"\r\n\r\n")
            assert (await reader.readexactly(9)).endswith(b"at once")
            assert hub.carrier

            async def flood(own: Carrier) -> None:
                while True:
                    await own.send([bytes(1_000_000)])

            flooding = asyncio.create_task(flood(hub.carrier))
            await asyncio.sleep(0.5)
            assert not flooding.done()
            assert hub.carrier.stuck_s > 0
            writer.transport.abort()
            with pytest.raises(LinkLost):
                await flooding
            assert (await hub.ended)[0] == 1006

    run(test)


def test_a_hub_that_says_no() -> None:
    async def test() -> None:
        async with server() as hub:
            with pytest.raises(Refused, match="404"):
                await dial(hub.url.replace("http", "ws") + "elsewhere", PROTOCOL, [], lambda m: None)
            with pytest.raises(Refused, match="without q"):
                await dial(hub.url.replace("http", "ws"), "q", [], lambda m: None)

    run(test)


def test_who_makes_much_work_is_not_read_for_a_while() -> None:
    async def test() -> None:
        def busy(_: memoryview) -> None:
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                pass

        transport = mock.Mock(asyncio.Transport)
        transport.is_closing.return_value = False
        own = Carrier(busy)
        own.connection_made(transport)
        own.data_received(b"".join(ws13.frames([b"work"], lambda: bytes(4))))
        transport.pause_reading.assert_called_once()
        transport.resume_reading.assert_not_called()
        await asyncio.sleep(0.2)
        transport.resume_reading.assert_called_once()

    run(test)
