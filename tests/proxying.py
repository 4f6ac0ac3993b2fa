"""A proxy's Worker behind a pair of links in one process, and upstreams to try it on: nginx, and some made by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from procs.proxy import options
from procs.proxy.policy import Upstream
from procs.proxy.worker import Worker
from procs.streams.link import Link
from procs.streams.stream import Stream
from procs.wire.mux1 import Head, MuxLimits, Open
from tests.joined import Joined
from tests.rig import free_port, until

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


class Got(NamedTuple):
    """A whole answer."""

    head: Head
    body: bytes

    def field(self, name: str) -> str:
        """A header's value; "" without it."""
        return next((value for key, value in self.head.headers if key.lower() == name), "")


class Hub:
    """The hub's end."""

    def __init__(self, link: Link, worker: Worker | None = None) -> None:
        self.link, self._worker = link, worker

    @property
    def worker(self) -> Worker:
        """The other end, where it is in this process."""
        assert self._worker is not None
        return self._worker

    def open(self, method: str, path: str, headers: Sequence[tuple[str, str]] = (), **more: Any) -> Stream:
        """A stream for a request."""
        return self.link.open(Open(more.pop("kind", "http"), method, path, list(headers), **more))

    async def ask(
        self, method: str, path: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"", **more: Any
    ) -> Got:
        """A request and its whole answer. Raises StreamReset."""
        stream = self.open(method, path, headers, **more)
        if body:
            await stream.write(body)
        stream.finish()
        head = await stream.head()
        return Got(head, await rest(stream))

    async def get(self, path: str, **more: Any) -> Got:
        """A GET and its whole answer."""
        return await self.ask("GET", path, **more)


async def rest(stream: Stream) -> bytes:
    """All that is still to come of a stream."""
    found = bytearray()
    while chunk := await stream.read():
        found += chunk.data
    return bytes(found)


@contextlib.asynccontextmanager
async def hub(*upstreams: Upstream, limits: MuxLimits | None = None, within_s: float = 30.0) -> AsyncIterator[Hub]:
    """A Worker and the hub's end of its link."""
    worker = Worker(upstreams)
    ends = Joined(worker.accept, limits)
    try:
        async with asyncio.timeout(within_s):
            yield Hub(ends.hub, worker)
    finally:
        await ends.end()
        ends.device.lost("the test is over")
        await worker.close()


def upstream(port: int, *rules: str, max_upload: str = "1M") -> Upstream:
    """One at a port of loopback, below /up."""
    section = {"url": f"http://127.0.0.1:{port}", "prefix": "/up", "max_upload": max_upload}
    return options.upstreams({"up": {**section, "rules": list(rules or ("GET,HEAD /**?*", "POST /**"))}}, "test")[0]


@contextlib.asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    """A server made by hand: `handler` gets each connection and its number. Yields its port."""
    count = 0
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(reader, writer, number)
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        tasks.add(asyncio.ensure_future(run(reader, writer, count)))
        count += 1

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def request_of(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """(request line, headers, body) of the next request."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = b""
    if "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    return lines[0], fields, body


def saying(*answers: bytes) -> Handler:
    """On each connection each request gets the next of these answers; then the connection is closed."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        for answer in answers:
            await request_of(reader)
            writer.write(answer)
            await writer.drain()

    return handle


@contextlib.contextmanager
def nginx(folder: Path, more: str = "") -> Iterator[int]:
    """A real nginx that serves a folder. Yields its port."""
    port, scratch = free_port(), folder.parent
    temporary = "".join(
        f"{kind}_temp_path {scratch}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (scratch / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; {more} }} }}"
    )
    with (scratch / "nginx.out").open("wb") as out:
        command = ["nginx", "-p", str(scratch), "-c", str(scratch / "nginx.conf"), "-e", str(scratch / "nginx.log")]
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/bin"}
        )
    try:
        until(lambda: _listens(port), 10)
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    import socket

    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
