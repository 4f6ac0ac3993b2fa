"""Requests to one upstream over connections that are kept open, sent again where that can do no harm.

A request that changes nothing is sent again until its deadline, for as long as the upstream refuses connections or
breaks before the first byte of an answer: whoever restarts loses none. Any other is sent at most once: NOT_SENT says
that it certainly never reached the upstream, UNKNOWN that it may have.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import NamedTuple

from procs.errors import LinkLost, StreamReset, UpstreamFailed
from procs.proxy.http1 import Connection
from procs.proxy.policy import Upstream
from procs.wire.mux1 import Code

CONNECT_LIMIT_S = 5.0
KEPT_FOR_S = 30.0
KEPT = 32  # connections
FRESH_S = 1.0  # a request that may be sent only once rides no connection that has been idle for longer
BODY_LIMIT_S = 30.0  # for how long nothing of a request's body may come, and an upstream may take nothing
RETRY_FIRST_S, RETRY_CAP_S = 0.01, 0.25
# go2rtc listens before it knows all of its own paths, and says of those that nobody has them, as Go does. What it says
# of a stream is shorter; but a session of HLS that is over has the same answer.
STARTING_S, NO_PAGE = 2.0, len("404 page not found\n")
SMALL = 64 * 1024  # bytes; a smaller answer is waited for as a whole, so that a request whose answer breaks off is
GATHER_S = 0.05  # sent again, but for no longer than this


class Body(NamedTuple):
    """A request's body: its length (None: its end will tell), the most it may have, and how to get the next piece (None
    at the end)."""

    length: int | None
    limit: int
    read: Callable[[], Awaitable[bytes | memoryview | None]]


class Request(NamedTuple):
    """What is asked of an upstream. `deadline` is on the event loop's clock."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: Body | None
    is_idempotent: bool
    deadline: float
    is_endless: bool = False  # the answer has no end of its own

    def head(self) -> bytes:
        """As it goes over the wire."""
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body is not None:
            length = self.body.length
            lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        elif self.method in ("POST", "PUT", "PATCH"):
            lines.append("Content-Length: 0")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Answer:
    """The answer of an upstream, as far as it has come. An asynchronous context manager: leaving it keeps the
    connection for others if all was read, and closes it at once if not."""

    def __init__(self, pool: Pool, connection: Connection, sender: asyncio.Task[None] | None) -> None:
        self._pool, self._connection, self._sender = pool, connection, sender
        self.status = connection.status
        self.headers: list[tuple[str, str]] = connection.headers
        self.length = connection.length

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_sent = self._sender is None or self._sender.done()
        if is_sent and self._connection.is_reusable:
            self._pool.keep(self._connection)
        else:
            self._connection.abort()
        if self._sender is not None:
            await _ended(self._sender)

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come, read or not."""
        return self._connection.is_whole

    @property
    def waiting(self) -> int:
        """Bytes of the body that have come and are not read yet."""
        return self._connection.waiting

    async def read(self, limit_s: float | None) -> bytes:
        """The next bytes of the body; b"" at its end. Raises UpstreamFailed."""
        return await self._connection.read(limit_s)

    async def all(self, limit: int, limit_s: float) -> bytes:
        """The whole body. Raises UpstreamFailed for one of more than `limit` bytes too."""
        pieces, size = [], 0
        while piece := await self._connection.read(limit_s):
            pieces.append(piece)
            if (size := size + len(piece)) > limit:
                raise UpstreamFailed(Code.UPSTREAM_ERROR, f"the answer is longer than {limit} bytes", status=413)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Pool:
    """One upstream and the connections to it."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._kept: list[Connection] = []
        self._sweep: asyncio.TimerHandle | None = None

    async def ask(self, request: Request, first_byte_s: float) -> Answer:
        """Send a request and wait for the head of its answer. Raises UpstreamFailed."""
        until = min(request.deadline, self._loop.time() + first_byte_s)
        started_by = min(until, self._loop.time() + STARTING_S)
        pause_s = 0.0
        while True:
            is_kept = False
            try:
                connection = await self._connection(request, until)
                is_kept = connection.is_kept
                answer = await self._exchange(connection, request, until)
                if not self._is_starting(request, answer) or self._loop.time() >= started_by:
                    return answer
                connection.abort()
                pause_s = _longer(pause_s)
            except UpstreamFailed as failure:
                if not failure.may_repeat or not request.is_idempotent or request.body is not None:
                    raise
                # A kept connection may have been closed while nobody looked: that says nothing of the upstream.
                pause_s = 0.0 if is_kept else _longer(pause_s)
                if self._loop.time() + pause_s >= until:
                    raise
            if pause_s:
                await asyncio.sleep(pause_s)

    def _is_starting(self, request: Request, answer: Answer) -> bool:
        """Whether it is a go2rtc that does not know yet what it is asked for, by a request that may be sent again."""
        is_its = self.upstream.knows_streams and re.match(r"/api(?!/hls/)", request.target)
        is_unknown = answer.status == 404 and answer.length == NO_PAGE
        return bool(is_its and is_unknown and request.is_idempotent and request.body is None)

    async def _exchange(self, connection: Connection, request: Request, until: float) -> Answer:
        sender = None
        try:
            connection.begin(request.method, request.head())
            if request.body is not None:
                sender = asyncio.create_task(_send(connection, request.body))
                until += await _taken(sender, connection)
            await connection.head(until - self._loop.time())
            if request.is_idempotent and not request.is_endless and not connection.is_whole:
                await _gathered(connection)
        except UpstreamFailed as failure:
            connection.abort()
            await _ended(sender)
            if not request.is_idempotent and failure.code in (Code.UPSTREAM_ERROR, Code.TIMEOUT):
                raise UpstreamFailed(Code.UNKNOWN, failure.reason, status=failure.status) from None
            raise
        except asyncio.CancelledError:
            connection.abort()
            await _ended(sender)
            raise
        return Answer(self, connection, sender)

    async def _connection(self, request: Request, until: float) -> Connection:
        """A connection that nobody else uses. Raises UpstreamFailed."""
        oldest = self._loop.time() - (KEPT_FOR_S if request.is_idempotent else FRESH_S)
        while self._kept:
            connection = self._kept.pop()
            if connection.is_reusable and connection.idle_since >= oldest:
                return connection
            connection.abort()
        made = self._loop.create_connection(Connection, self.upstream.host, self.upstream.port)
        try:
            limit_s = min(CONNECT_LIMIT_S, max(0.001, until - self._loop.time()))
            _, connection = await asyncio.wait_for(made, limit_s)
        except (OSError, TimeoutError) as error:
            reason = f"{self.upstream.name} takes no connection: {_short(error)}"
            raise UpstreamFailed(Code.NOT_SENT, reason, may_repeat=True) from None
        return connection

    def keep(self, connection: Connection) -> None:
        """Have a connection ready for the next request."""
        if len(self._kept) >= KEPT:
            connection.abort()
            return
        connection.is_kept, connection.idle_since = True, self._loop.time()
        self._kept.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEPT_FOR_S, self._close_idle)

    def _close_idle(self) -> None:
        oldest = self._loop.time() - KEPT_FOR_S
        stale = [each for each in self._kept if each.idle_since < oldest or not each.is_reusable]
        self._kept = [each for each in self._kept if each not in stale]
        for connection in stale:
            connection.abort()
        self._sweep = self._loop.call_later(KEPT_FOR_S / 2, self._close_idle) if self._kept else None

    def close(self) -> None:
        """Close what is kept."""
        for connection in self._kept:
            connection.abort()
        self._kept.clear()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None


async def _taken(sender: asyncio.Task[None], connection: Connection) -> float:
    """Wait until a request's body has been sent, or the answer has begun all the same; returns the seconds which that
    took, and which the time for an answer does not count."""
    began = time.monotonic()
    answering = asyncio.create_task(connection.head(None))
    try:
        await asyncio.wait((sender, answering), return_when=asyncio.FIRST_COMPLETED)
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)  # what it raises, the next wait does
    return time.monotonic() - began


async def _ended(sender: asyncio.Task[None] | None) -> None:
    """Stop whoever sends a request's body, so that another may read what comes of it."""
    if sender is not None:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)


async def _gathered(connection: Connection) -> None:
    """Have a small answer come whole. Raises UpstreamFailed."""
    if connection.length is not None and connection.length > SMALL:
        return
    try:
        await connection.gathered(SMALL, GATHER_S)
    except UpstreamFailed as failure:
        raise UpstreamFailed(failure.code, failure.reason, may_repeat=connection.is_broken) from None


def _longer(pause_s: float) -> float:
    return min(max(RETRY_FIRST_S, 2 * pause_s), RETRY_CAP_S)


def _short(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "no answer")[:200]


async def _send(connection: Connection, body: Body) -> None:
    """Send a request's body, exactly as long as was said: more would be taken for another request."""
    sent = 0
    try:
        while True:
            async with asyncio.timeout(BODY_LIMIT_S):
                piece = await body.read()
            if piece is None:
                break
            sent += len(piece)
            if body.length is not None and sent > body.length:
                raise UpstreamFailed(Code.PROTOCOL, "the body is longer than its Content-Length", status=400)
            if sent > body.limit:
                raise UpstreamFailed(Code.REFUSED, "the body is too large", status=413)
            if not piece:
                continue
            if body.length is None:
                connection.write(b"%x\r\n" % len(piece))
            connection.write(piece)
            if body.length is None:
                connection.write(b"\r\n")
            await connection.drained(BODY_LIMIT_S)
        if body.length is not None and sent < body.length:
            raise UpstreamFailed(Code.PROTOCOL, "the body is shorter than its Content-Length", status=400)
        if body.length is None:
            connection.write(b"0\r\n\r\n")
    except UpstreamFailed as failure:
        connection.fail(failure)
    except TimeoutError:
        connection.fail(UpstreamFailed(Code.TIMEOUT, f"nothing of the body came for {BODY_LIMIT_S:g} s", status=408))
    except (StreamReset, LinkLost) as gone:
        connection.fail(UpstreamFailed(Code.CANCEL, f"whoever sent the body is gone: {gone}"))
