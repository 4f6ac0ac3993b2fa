"""The proxy as a process, between a ws_link and a hub that are played here: killed, refused, flooded, left alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq.asyncio
from aiohttp import WSMsgType, web

from procs import bus
from procs.errors import LinkLost, StreamReset
from procs.messages.work import Job, JobDone, Ready, TicketGrant, TicketRefused, TicketWanted, decode_from_worker
from procs.streams.link import Link
from procs.wire.mux1 import Code, MuxLimits, Open
from tests.joined import one_by_one
from tests.proxying import Hub, request_of, rest, serving
from tests.rig import clean_environ, free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Around:
    """Everything that a proxy knows: ws_link's end of the bus, the hub's data endpoint, and an upstream."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._context = zmq.asyncio.Context()
        self.sock = bus.work_binder(self._context, run_dir)
        self.ready: list[tuple[float, Ready]] = []
        self.wanted: list[float] = []
        self.done: asyncio.Queue[tuple[JobDone, bytes]] = asyncio.Queue()
        self.links: asyncio.Queue[tuple[Link, web.WebSocketResponse]] = asyncio.Queue()
        self.closes: asyncio.Queue[int | None] = asyncio.Queue()
        self.grants, self.third_wish = True, asyncio.Event()
        self.tickets: list[str] = []
        self.port = free_port()

    async def be_ws_link(self) -> None:
        """Answer what the proxy asks."""
        while True:
            worker, data, body = await bus.receive_work(self.sock)
            message = decode_from_worker(data)
            if isinstance(message, Ready):
                self.ready.append((time.monotonic(), message))
            elif isinstance(message, JobDone):
                self.done.put_nowait((message, body))
            elif isinstance(message, TicketWanted):
                self.wanted.append(time.monotonic())
                if len(self.wanted) == 3:
                    self.third_wish.set()
                self._answer(message, worker)

    def _answer(self, message: TicketWanted, worker: str) -> None:
        if not self.grants:
            bus.send_work(self.sock, TicketRefused(message.id, "no hub"), worker=worker)
            return
        ticket = os.urandom(8).hex()
        self.tickets.append(ticket)
        url = f"ws://127.0.0.1:{self.port}/ws/data"
        bus.send_work(self.sock, TicketGrant(message.id, url, ticket, "device-1"), worker=worker)

    async def take_data(self, request: web.Request) -> web.StreamResponse:
        """The hub's /ws/data: each ticket once."""
        ticket = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if ticket not in self.tickets:
            return web.Response(status=401)
        self.tickets.remove(ticket)
        ws = web.WebSocketResponse(protocols=("planaria.mux1",), compress=False)
        await ws.prepare(request)
        assert ws.ws_protocol == "planaria.mux1"
        link = Link(one_by_one(ws.send_bytes), opens="odd", ours=MuxLimits(), theirs=MuxLimits())
        writing = asyncio.create_task(link.write())
        self.links.put_nowait((link, ws))
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                link.received(message.data)
        link.lost("closed")
        await asyncio.gather(writing, return_exceptions=True)
        self.closes.put_nowait(ws.close_code)
        return ws

    async def job(self, method: str, path: str, *, body: bytes = b"", limit_s: float = 5.0) -> tuple[JobDone, bytes]:
        """A request that came as JSON, and what becomes of it."""
        rid = os.urandom(4).hex()
        job = Job(rid, method, path, [("Accept", "*/*")], bus.now_ms() + int(limit_s * 1000))
        assert bus.send_work(self.sock, job, body, worker="1")
        done, data = await asyncio.wait_for(self.done.get(), limit_s + 1)
        assert done.rid == rid
        return done, data

    def close(self) -> None:
        """Leave the bus."""
        self.sock.close()
        self._context.term()


@asynccontextmanager
async def proxy(run_dir: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A proxy that ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "procs.proxy", "--instance", "1"),
        env=clean_environ(PLANARIA_RUN_DIR=str(run_dir), PLANARIA_PARENT=str(os.getpid())),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def around(run_dir: Path, upstream: int) -> AsyncIterator[Around]:
    """ws_link, the hub, and settings that name one upstream."""
    rules = ["GET /endless/* endless", "GET,HEAD /**", "POST /**"]
    section = {"up": {"url": f"http://127.0.0.1:{upstream}", "prefix": "/up", "rules": rules}}
    (run_dir / "proxy.json").write_text(json.dumps({"upstreams": section}))
    found = Around(run_dir)
    app = web.Application()
    app.router.add_get("/ws/data", found.take_data)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", found.port).start()
    work = asyncio.create_task(found.be_ws_link())
    try:
        yield found
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await runner.cleanup()
        found.close()


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """An upstream: /slow takes its time, /long is long, /endless has no end, the rest is ok."""
    while True:
        line = (await request_of(reader))[0]
        if "/slow" in line:
            await asyncio.sleep(1)
        if "/long" in line:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        elif "/endless" in line:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(bytes(1000))
                await writer.drain()
                await asyncio.sleep(0.01)
        else:
            writer.write(OK)


def run(work: Callable[[Around], Coroutine[Any, Any, None]], run_dir: Path, *, debug: bool | None = None) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), serving(answer_all) as port, around(run_dir, port) as found:
            await work(found)

    asyncio.run(whole(), debug=debug)


async def connected(found: Around, within_s: float = 10.0) -> Hub:
    """The hub's end of the next data connection."""
    link, _ = await asyncio.wait_for(found.links.get(), within_s)
    return Hub(link)


def test_streams_and_jobs_and_deaths(run_dir: Path) -> None:
    async def work(found: Around) -> None:
        async with proxy(run_dir) as first:
            hub = await connected(found)
            assert (await hub.get("/up/a")).body == b"ok"
            assert found.ready[0][1].worker == "1" and found.ready[0][1].capacity > 0
            assert (await found.job("GET", "/up/a"))[1] == b"ok"
            assert (await found.job("POST", "/up/a", body=b"x" * 50_000))[0].status == 200
            waiting = asyncio.create_task(hub.get("/up/slow"))
            await asyncio.sleep(0.2)
            first.send_signal(signal.SIGKILL)
            with pytest.raises(LinkLost):
                await waiting
        async with proxy(run_dir):
            began = time.monotonic()
            again = await connected(found)
            assert (await again.get("/up/a")).body == b"ok"
            assert time.monotonic() - began < 5  # a start under a test's load

    run(work, run_dir)


def test_a_hub_that_goes_and_comes(run_dir: Path) -> None:
    async def work(found: Around) -> None:
        async with proxy(run_dir):
            link, ws = await asyncio.wait_for(found.links.get(), 10)
            await asyncio.sleep(0.5)
            began = time.monotonic()
            await ws.close(code=1012)
            hub = await connected(found, 2)
            assert time.monotonic() - began < 1  # within 100 ms, and what a busy machine adds
            assert (await hub.get("/up/a")).body == b"ok"
            assert link.is_full  # it is gone

    run(work, run_dir)


def test_no_hub_and_no_ws_link(run_dir: Path) -> None:
    """It asks again, ever less often, and does what work comes otherwise."""

    async def work(found: Around) -> None:
        found.grants = False
        async with proxy(run_dir):
            await asyncio.wait_for(found.third_wish.wait(), 20)
            assert (await found.job("GET", "/up/a"))[1] == b"ok"
            assert len(found.ready) >= 1
            found.grants = True
            found.tickets.append("never used")
            hub = await connected(found, 15)
            assert (await hub.get("/up/a")).body == b"ok"
            assert len(found.wanted) < 20

    run(work, run_dir)


def test_a_stale_ticket_is_refused_and_another_asked_for(run_dir: Path) -> None:
    async def work(found: Around) -> None:
        take, found.tickets = found._answer, []

        def stale(message: TicketWanted, worker: str) -> None:
            take(message, worker)
            if len(found.wanted) == 1:
                found.tickets.clear()

        found._answer = stale  # type: ignore[method-assign]
        async with proxy(run_dir):
            hub = await connected(found)
            assert len(found.wanted) >= 2
            assert (await hub.get("/up/a")).body == b"ok"

    run(work, run_dir)


def test_limits_of_jobs(run_dir: Path) -> None:
    async def work(found: Around) -> None:
        async with proxy(run_dir):
            await connected(found)
            for method, path, limit_s, status in (
                ("GET", "/up/long", 5.0, 413),
                ("GET", "/up/endless/x", 5.0, 501),
                ("GET", "/up/slow", 0.3, 504),
                ("DELETE", "/up/a", 5.0, 403),
                ("POST", "/api/config", 5.0, 403),
                ("GET", "/up/../a", 5.0, 400),
                ("GET", "http://x/", 5.0, 400),
            ):
                done, body = await found.job(method, path, limit_s=limit_s)
                assert done.status == status, path
                assert body
                if status == 504:
                    assert body == b"Gateway Timeout"

    run(work, run_dir)


def test_a_hub_that_breaks_the_protocol(run_dir: Path) -> None:
    """The connection is closed with 1002, and made again: the process lives."""

    async def work(found: Around) -> None:
        async with proxy(run_dir) as process:
            for frame in (b"", b"nonsense", bytes([0xA1, 9]) + bytes(6), bytes([0xA1, 3, 0, 0, 0, 0, 0, 77]) + b"x"):
                _, ws = await asyncio.wait_for(found.links.get(), 10)
                await ws.send_bytes(frame)
                assert await asyncio.wait_for(found.closes.get(), 5) == 1002
            _, ws = await asyncio.wait_for(found.links.get(), 10)
            await ws.send_str("text")
            assert await asyncio.wait_for(found.closes.get(), 5) == 1002
            hub = await connected(found)
            for path in ("/up/a", "/up/../a", "/nobody"):
                await hub.get(path)
            assert process.returncode is None

    run(work, run_dir)


def test_ten_thousand_opens(run_dir: Path) -> None:
    """More streams than were agreed on are refused one by one; those that are served are served."""

    async def work(found: Around) -> None:
        async with proxy(run_dir):
            hub = await connected(found)
            hub.link._theirs = MuxLimits(max_streams=4096)  # a hub that does not keep to what was agreed
            ends: dict[str, int] = {}

            async def one() -> None:
                stream = hub.link.open(Open("http", "GET", "/up/a"))
                stream.finish()
                try:
                    status = (await stream.head()).status
                    await rest(stream)
                    ends[str(status)] = ends.get(str(status), 0) + 1
                except StreamReset as error:
                    ends[Code(error.code).name] = ends.get(Code(error.code).name, 0) + 1

            for _ in range(10):
                await asyncio.gather(*(one() for _ in range(1000)))
            assert set(ends) == {"200", "TOO_MANY"} and ends["200"] >= 64 * 10
            assert (await hub.get("/up/a")).body == b"ok"

    run(work, run_dir, debug=False)  # a trace for each of them would take a minute
