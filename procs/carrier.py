"""Carries the messages of a Link (procs/streams/link.py) over one WebSocket, right on the transport of asyncio.

For a tunnel in Python it is the number of wake-ups, system calls and copies a frame that binds: what waits goes out in
one write, and what comes in is handed to the Link as it is read, without a queue or a task between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from procs.errors import ConfigError, LinkLost, Refused
from procs.streams.link import Link
from procs.wire import ws13

MAX_MESSAGE = 1024 * 1024 + 8  # the largest frame of mux1 that can be agreed on
CLOSE_LIMIT_S = 2.0
QUIET_S, DEAD_S = 10.0, 25.0  # after which the other side is asked for a sign of life; after which it is given up
SEND_LIMIT_S = 25.0  # for which the other side may take nothing
TURN_S = 0.03  # of work for what was read at once; who makes more of it is read no more for as long as it took
# What waits in the kernel can't be overtaken by another stream's frame.
NOT_SENT_BYTES = 128 * 1024
_TCP_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),  # ms without an acknowledgement
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
)


class Carrier(asyncio.Protocol):
    """One connection after its handshake. `heard_at`: when the other side was last heard, on the loop's clock;
    `over`: (close code, why) once it is over, by whomever."""

    def __init__(self, received: Callable[[memoryview], None], *, mask: Callable[[], bytes] | None = None) -> None:
        """`mask`: gives what a client masks each message with; None makes it a server."""
        self._loop = asyncio.get_running_loop()
        self._received, self._mask = received, mask
        self._frames = ws13.Frames(masked=mask is None, limit=MAX_MESSAGE)
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.Future[None] | None = None
        self._is_paused = self._said_close = False
        self._sending_since = 0.0
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.heard_at = self._loop.time()
        self.over: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self.on_lost: Callable[[Exception | None], None] | None = None

    def take_over(self, transport: asyncio.BaseTransport) -> None:
        """Be the protocol of a transport on which another has done the handshake."""
        self.connection_made(transport)
        cast(asyncio.Transport, transport).set_protocol(self)

    @property
    def stuck_s(self) -> float:
        """For how long the other side has taken nothing of what we want to send."""
        return self._loop.time() - self._sending_since if self._is_paused else 0.0

    async def send(self, messages: Sequence[bytes]) -> None:
        """Send messages; returns when more will be taken. Raises LinkLost."""
        self._write(messages)
        while self._is_paused:
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        if self._transport is None:
            raise LinkLost("the connection is gone")

    def _write(self, messages: Sequence[bytes], opcode: int = ws13.BINARY) -> None:
        if self._transport is None or self._transport.is_closing() or self._said_close:
            raise LinkLost("the connection is gone")
        self._transport.writelines(ws13.frames(messages, self._mask, opcode))

    async def close(self, code: int, reason: str) -> None:
        """End the connection, with a word to the other side, which has a moment to answer it."""
        self._end(code, reason)
        with contextlib.suppress(LinkLost):
            self._say_close(code, reason)
        await asyncio.wait((self._gone,), timeout=CLOSE_LIMIT_S)
        if self._transport is not None:
            self._transport.abort()

    def _say_close(self, code: int, reason: str) -> None:
        self._write([ws13.closing(code, reason)], ws13.CLOSE)
        self._said_close = True

    def _end(self, code: int, reason: str) -> None:
        if not self.over.done():
            self.over.set_result((code, reason))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        for level, name, value in _TCP_OPTIONS:
            with contextlib.suppress(OSError, AttributeError):
                sock.setsockopt(level, name, value)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        began = time.thread_time()
        try:
            for message in self._frames.feed(data):
                if message.opcode == ws13.BINARY:
                    if not self.over.done():
                        self._received(message.data)
                else:
                    self._take_control(message)
        except Refused as reason:
            self._end(1002, str(reason))
        if (took_s := time.thread_time() - began) > TURN_S and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_later(took_s, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _take_control(self, message: ws13.Message) -> None:
        if message.opcode == ws13.CLOSE:
            code, reason = ws13.read_closing(message.data)
            self._end(1000, f"closed by the other side: {code} {reason}".rstrip())
            if not self._said_close:
                with contextlib.suppress(LinkLost):
                    self._say_close(code if code != 1005 else 1000, "")
            if self._transport is not None:
                self._transport.close()
        elif message.opcode == ws13.PING and not self._is_paused:  # who takes no answer gets none
            with contextlib.suppress(LinkLost):
                self._write([bytes(message.data)], ws13.PONG)

    def pause_writing(self) -> None:
        self._is_paused, self._sending_since = True, self._loop.time()

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end(1006, f"the connection broke: {error}" if error else "the connection broke")
        self.resume_writing()
        if not self._gone.done():
            self._gone.set_result(None)
        if self.on_lost is not None:
            self.on_lost(error)


async def carry(link: Link, carrier: Carrier) -> tuple[int, str]:
    """Write what a Link sends and watch the other side, until the connection is over: (close code, why)."""
    works = [asyncio.create_task(work) for work in (_write(link), _watch(link, carrier))]
    try:
        done, _ = await asyncio.wait((carrier.over, *works), return_when=asyncio.FIRST_COMPLETED)
        return carrier.over.result() if carrier.over in done else next(iter(done)).result()
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)


async def _write(link: Link) -> tuple[int, str]:
    try:
        await link.write()
    except LinkLost as lost:
        return 1011, str(lost)
    return 1008, "it asks for more than it takes"


async def _watch(link: Link, carrier: Carrier) -> tuple[int, str]:
    loop = asyncio.get_running_loop()
    while (quiet_s := loop.time() - carrier.heard_at) < DEAD_S:
        if carrier.stuck_s > SEND_LIMIT_S:
            return 1011, f"the other side took nothing for {SEND_LIMIT_S:g} s"
        if quiet_s >= QUIET_S:
            link.ping(bytes(8))
        await asyncio.sleep(QUIET_S / 4)
    return 1011, f"the other side was silent for {DEAD_S:g} s"


class _Client(asyncio.Protocol):
    """A client's connection until the handshake is done."""

    def __init__(self, asking: bytes) -> None:
        self._asking, self._data = asking, b""
        self.answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._asking)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self.answer.done():
            return
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if found:
            self._data = b""
            self.answer.set_result((head, rest))
        elif len(self._data) > ws13.MAX_HEAD:
            self.answer.set_exception(Refused("no end of the answer's head"))

    def after(self) -> bytes:
        """What came after the answer, since."""
        return self._data

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(Refused("closed without an answer"))


def _no_mask() -> bytes:
    return bytes(4)


def _mask() -> bytes:
    return os.urandom(4)


def trust(ca: Path | None) -> ssl.SSLContext:
    """What a hub's certificate is checked with: what this machine trusts, and the certificates in a PEM file. To read
    all that this machine trusts takes 40 ms of a processor, so only whoever needs it asks for it.

    Raises ConfigError for a file that can't be used.
    """
    context = ssl.create_default_context()
    try:
        if ca:
            context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"PLANARIA_HUB_CA={str(ca)!r}: must be a file of certificates in PEM: {error}") from None
    return context


DISTRUST = "its certificate is "  # how it begins in words that one was not taken, which no waiting mends
_OTHER_NAME = 62, 64  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def distrust(error: Exception) -> str:
    """Why a certificate was not taken, and what to do. `error`: what ssl has said of it."""
    if getattr(error, "verify_code", 0) in _OTHER_NAME:
        why = getattr(error, "verify_message", str(error)).rstrip(".")
        return f"{DISTRUST}for another name: {why}; one for this name or address is needed there"
    return f"{DISTRUST}not trusted: {error}; PLANARIA_HUB_CA=FILE names who may sign it"


async def dial(
    url: str,
    subprotocol: str,
    headers: Sequence[tuple[str, str]],
    received: Callable[[memoryview], None],
    ca: Path | None = None,
) -> Carrier:
    """Connect to a WebSocket and be its client. Raises OSError, and Refused if the answer is no."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "wss"
    key = ws13.new_key()
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    asking = ws13.asking(parts.netloc, target, key, subprotocol, headers)
    transport, client = await asyncio.get_running_loop().create_connection(
        lambda: _Client(asking),
        parts.hostname or "",
        parts.port or (443 if is_tls else 80),
        ssl=trust(ca) if is_tls else None,
    )
    try:
        head, rest = await client.answer
        ws13.check_answer(head, key, subprotocol)
    except BaseException:  # a cancellation, too: nobody else knows the transport
        transport.abort()
        raise
    # Masks keep a page's script from writing plain text of its choice that a box on the way could take for HTTP. Nobody
    # is on the way of what is encrypted or stays on this machine; there they would cost a quarter of the throughput.
    host = transport.get_extra_info("peername")[0]
    is_hidden = is_tls or host == "::1" or host.startswith("127.")
    carrier = Carrier(received, mask=_no_mask if is_hidden else _mask)
    carrier.take_over(transport)
    carrier.data_received(rest + client.after())
    return carrier
