"""HTTP/1.1 towards an upstream: one connection, one exchange at a time, with back-pressure in both directions.

Bodies are handed on as they come off the socket: what is chunked is unpacked, what is compressed stays so. Whatever
breaks raises UpstreamFailed, which says whether any byte of the answer had come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from procs.errors import UpstreamFailed
from procs.wire.fields import MAX_BYTES, MAX_FIELDS
from procs.wire.mux1 import Code

READ_AHEAD = 512 * 1024  # bytes of an answer that may wait here; more stays in the kernel
PIECE = 256 * 1024  # bytes handed on at once


class Connection(asyncio.Protocol):
    """One connection. `is_kept`: it has carried an exchange before, so that the upstream may drop it at any time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._can_write = True
        self.is_kept = False
        self.idle_since = 0.0
        self.on_idle_end: Callable[[Connection], None] | None = None
        self._forget_exchange()

    def _forget_exchange(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        self._is_head_request = self._is_plain = self._is_reading_paused = False
        self._started = self._ended = self._keeps = False
        self._head_size = 0
        self._failure: UpstreamFailed | None = None
        self._pieces: deque[bytes] = deque()
        self._waiting = 0  # bytes in them
        self._left: int | None = None  # of a body of known length
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.length: int | None = None  # of the body, as the answer says
        self.has_head = False
        self.is_broken = False  # the connection went away in the middle

    # The exchange

    def begin(self, method: str, head: bytes) -> None:
        """Send the head of a request. What is read from now on is its answer."""
        self._forget_exchange()
        self._parser = httptools.HttpResponseParser(self)
        self._is_head_request = method == "HEAD"
        self.write(head)

    def write(self, data: bytes | memoryview) -> None:
        """Send a piece of the request. Raises UpstreamFailed."""
        if self._failure is not None or self._transport is None:
            raise self._failure or UpstreamFailed(Code.UPSTREAM_ERROR, "no connection", may_repeat=True)
        self._transport.write(data)

    async def drained(self, limit_s: float) -> None:
        """Wait until the upstream takes more. Raises UpstreamFailed."""
        while not self._can_write and self._failure is None:
            self._writer = self._loop.create_future()
            await self._in_time(self._writer, limit_s, "the upstream takes no more of the request")
        if self._failure is not None:
            raise self._failure

    async def head(self, limit_s: float | None) -> None:
        """Wait until `status`, `headers` and `length` are those of the answer. Raises UpstreamFailed."""
        while not self.has_head:
            await self._more(limit_s, "no answer in time")

    async def read(self, limit_s: float | None) -> bytes:
        """The next bytes of the body; b"" at its end. Raises UpstreamFailed, also when none came for limit_s."""
        while not self._pieces:
            if self._ended:
                return b""
            await self._more(limit_s, "the answer stands still")
        data = self._pieces.popleft()
        if self._pieces and len(data) < PIECE // 4:  # many small chunks: hand them on together
            pieces = [data]
            size = len(data)
            while self._pieces and size + len(self._pieces[0]) <= PIECE:
                pieces.append(self._pieces.popleft())
                size += len(pieces[-1])
            data = b"".join(pieces)
        self._waiting -= len(data)
        if self._is_reading_paused and self._waiting <= READ_AHEAD // 2 and self._transport is not None:
            self._is_reading_paused = False
            self._transport.resume_reading()
        return data

    async def gathered(self, size: int, limit_s: float) -> None:
        """Wait until the whole answer has come, or `size` bytes of it, or for limit_s. Raises UpstreamFailed if it
        breaks off meanwhile."""
        until = self._loop.time() + limit_s
        while not self._ended and self._waiting < size and (left_s := until - self._loop.time()) > 0:
            if self._failure is not None:
                raise self._failure
            self._reader = self._loop.create_future()
            timer = self._loop.call_later(left_s, self._wake)
            try:
                await self._reader
            finally:
                self._reader = None
                timer.cancel()

    @property
    def is_whole(self) -> bool:
        """Whether the whole answer has come, read or not."""
        return self._ended

    @property
    def waiting(self) -> int:
        """Bytes of the body that have come and are not read yet."""
        return self._waiting

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange may follow."""
        transport = self._transport
        return (
            self._ended and self._keeps and not self._waiting and transport is not None and not transport.is_closing()
        )

    def abort(self) -> None:
        """Close at once: the upstream learns that nobody listens any more."""
        if self._transport is not None:
            self._transport.abort()

    def fail(self, failure: UpstreamFailed) -> None:
        """End the exchange: whoever waits gets this."""
        if self._failure is None and not self._ended:
            self._failure = failure
        self.abort()
        self._wake()

    # Waiting

    async def _more(self, limit_s: float | None, problem: str) -> None:
        if self._failure is not None:
            raise self._failure
        self._reader = self._loop.create_future()
        try:
            await self._in_time(self._reader, limit_s, problem)
        finally:
            self._reader = None

    async def _in_time(self, future: asyncio.Future[None], limit_s: float | None, problem: str) -> None:
        timer = None if limit_s is None else self._loop.call_later(max(0.0, limit_s), self._expire, problem)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, problem: str) -> None:
        self.fail(UpstreamFailed(Code.TIMEOUT, problem, status=504))

    def _wake(self) -> None:
        for future in (self._reader, self._writer):
            if future is not None and not future.done():
                future.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._ended or self._failure is not None:
            self._keeps = False  # it speaks without being asked
            self.abort()
            return
        self._started = True
        if self._is_plain:
            self._take(data)
        else:
            self._parse(data)
        if self._waiting > READ_AHEAD and not self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        if not self.has_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(UpstreamFailed(Code.UPSTREAM_ERROR, "the upstream changes protocols unasked"))
        except httptools.HttpParserError as error:
            if not self._ended:
                self.fail(UpstreamFailed(Code.UPSTREAM_ERROR, f"the upstream's answer is no HTTP: {error}"[:200]))
            self._keeps = False
        if not self.has_head and self._head_size > 2 * MAX_BYTES:
            self.fail(UpstreamFailed(Code.UPSTREAM_ERROR, "the answer's head is too large"))

    def _take(self, data: bytes) -> None:
        """Bytes of a body that needs no parsing."""
        if self._left is not None:
            if len(data) > self._left:
                data, self._keeps = data[: self._left], False
            self._left -= len(data)
            self._ended = not self._left
        if data:
            self._pieces.append(data)
            self._waiting += len(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_plain and self._left is None and error is None and self._failure is None:
            self._ended = True  # the body's end was to be the connection's
        elif not self._ended and self._failure is None:
            what = "the upstream broke off" if self._started else "the upstream closed without an answer"
            self._failure = UpstreamFailed(Code.UPSTREAM_ERROR, what, may_repeat=not self._started)
            self.is_broken = True
        self._transport = self._parser = None
        self._keeps = False
        self._wake()
        if self.on_idle_end is not None:
            self.on_idle_end(self)

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        self._wake()

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer, or of its trailer, which nobody is promised."""
        if self.has_head:
            return
        if len(self.headers) >= MAX_FIELDS:
            raise ValueError("too many headers")
        self.headers.append((name.decode(errors="replace"), value.decode(errors="replace")))

    def on_headers_complete(self) -> None:
        """The head is there: how does the body end?"""
        assert self._parser is not None
        if self.has_head:
            self._keeps = False  # a second answer, to a question that nobody asked
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []  # 100 and 103: the answer proper is still to come
            return
        self.has_head = True
        self._keeps = self._parser.should_keep_alive()
        names = {name.lower(): value for name, value in self.headers}
        if "content-length" in names and "transfer-encoding" not in names:
            self.length = int(names["content-length"])
        if self._is_head_request or self.status in (204, 304):
            self._ended = True
        elif self.length is not None:
            self._left, self._is_plain, self._ended = self.length, True, self.length == 0
        elif "transfer-encoding" not in names:
            self._is_plain, self._keeps = True, False

    def on_body(self, data: bytes) -> None:
        """A piece of the body that came with the head, or was chunked."""
        if self._is_plain:
            self._take(data)
        elif self._ended:
            self._keeps = False  # a body where none may be
        else:
            self._pieces.append(data)
            self._waiting += len(data)

    def on_message_complete(self) -> None:
        """The answer is whole, as far as the parser had to look."""
        if self.has_head and not self._is_plain:
            self._ended = True
