"""One WebSocket that speaks text frames, a device's or a viewer's: what may come in, and what goes out without waiting.

Nobody who sends is ever held up by somebody who does not read: what waits for a reader has a bound, and who is over it
is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from procs import log
from procs.errors import LinkLost
from procs.hub.metrics import Counts
from procs.hub.people.accounts import Session
from procs.wire import envelope

# A frame over envelope.MAX_BYTES is refused by an answer; one over this ends the connection (1009), unread.
MAX_MESSAGE = 2 * envelope.MAX_BYTES
CLOSE_S = 5.0
_NEVER = 1 << 62  # bytes after which aiohttp would wait for the reader
_FRAMES = (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG)


class Bounds(NamedTuple):
    """What one connection may send, by bytes; over it, we read more slowly. `frame_cost`: bytes that a frame counts
    besides its own; `unsent`: bytes that may wait for who does not read."""

    bytes_per_s: float = 8e6
    burst: float = 32e6
    frame_cost: int = 40_000
    unsent: int = 4 * envelope.MAX_BYTES


USUAL = Bounds()


def new_socket(limit: int = MAX_MESSAGE) -> web.WebSocketResponse:
    """A WebSocket for text frames. Pings are ours to see: they are signs of life."""
    return web.WebSocketResponse(
        max_msg_size=limit, compress=False, autoping=False, timeout=CLOSE_S, writer_limit=_NEVER
    )


class Peer:
    """Bounds around one open WebSocket. `heard_at`: when its last frame came, by time.monotonic."""

    __slots__ = ("_allowance", "_bounds", "_counts", "_transport", "_ws", "address", "heard_at")

    def __init__(
        self, ws: web.WebSocketResponse, request: web.Request, address: str, counts: Counts, bounds: Bounds = USUAL
    ) -> None:
        self._ws, self._transport = ws, request.transport
        self._counts, self.address = counts, address
        self._bounds, self._allowance = bounds, bounds.burst
        self.heard_at = time.monotonic()

    async def receive(self) -> str | None:
        """The next text frame, as soon as there is one; None when the connection is over."""
        while True:
            message = await self._ws.receive()
            kind = message.type
            if kind in _FRAMES:
                await self._pay(len(message.data))
            if kind is WSMsgType.TEXT:
                return str(message.data)
            if kind is WSMsgType.BINARY:
                self.refuse("binary frame on a text connection")
            elif kind is WSMsgType.PING:
                with contextlib.suppress(LinkLost):
                    await self._write(self._ws.pong, message.data)
            elif kind is not WSMsgType.PONG:
                if kind is WSMsgType.ERROR:
                    self.refuse("frame that breaks RFC 6455 or its limits", error=str(message.data))
                return None

    def refuse(self, reason: str, **fields: object) -> None:
        """Count and log what was not taken; the connection lives."""
        self._counts.refuse(reason, address=self.address, **fields)

    async def _pay(self, size: int) -> None:
        bounds, now = self._bounds, time.monotonic()
        earned = self._allowance + (now - self.heard_at) * bounds.bytes_per_s
        self._allowance = min(bounds.burst, earned) - size - bounds.frame_cost
        self.heard_at = now
        if self._allowance < 0:
            self._counts.add("throttled_frames")
            await asyncio.sleep(-self._allowance / bounds.bytes_per_s)

    async def send(
        self, kind: str, payload: envelope.Payload, request_id: str | None = None, *, with_request_id: bool = False
    ) -> None:
        """Send a frame, without waiting for whoever reads. Raises LinkLost, or Refused for a payload that no frame can
        carry."""
        await self.say(envelope.encode(kind, payload, request_id, with_request_id=with_request_id))

    async def say(self, text: str) -> None:
        """Send a frame that is text already, as `send` does. Raises LinkLost."""
        await self._write(self._ws.send_str, text)

    async def ping(self) -> None:
        """Ask for a sign of life. Raises LinkLost."""
        await self._write(self._ws.ping, b"")

    async def _write(self, how: Callable[[Any], Awaitable[None]], data: str | bytes) -> None:
        if self.unsent > self._bounds.unsent:
            self.abort("it does not read what is sent to it")
            raise LinkLost("it does not read what is sent to it")
        try:
            await how(data)
        except (ConnectionError, RuntimeError) as error:  # RuntimeError: aiohttp's word for one that is closing
            raise LinkLost(str(error) or "the connection is closing") from None

    @property
    def unsent(self) -> int:
        """Bytes that wait for the other side to read."""
        return self._transport.get_write_buffer_size() if self._transport and not self._transport.is_closing() else 0

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        log.info("connection cut", reason=reason, address=self.address)
        if self._transport:
            self._transport.abort()

    async def close(self, reason: str, code: int = WSCloseCode.POLICY_VIOLATION) -> None:
        """End the connection with a close frame, which the other side has CLOSE_S to answer."""
        with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
            async with asyncio.timeout(2 * CLOSE_S):
                await self._ws.close(code=code, message=reason.encode()[:123])


class Viewer:
    """A viewer's connection, and whose it is. `can_resume`: it comes back to its watch sessions, as its hello said."""

    __slots__ = ("can_resume", "peer", "session")

    def __init__(self, peer: Peer, session: Session, *, can_resume: bool = False) -> None:
        self.peer, self.session, self.can_resume = peer, session, can_resume

    async def send(self, kind: str, payload: envelope.Payload, request_id: str | None = None) -> None:
        """Send a frame. Raises LinkLost."""
        await self.peer.send(kind, payload, request_id)


class Watcher(Protocol):
    """Who holds a watch session: a viewer's connection, or what asks for it by HTTP (whep.py)."""

    async def send(self, kind: str, payload: envelope.Payload, request_id: str | None = None) -> None:
        """Tell them. Raises LinkLost."""
