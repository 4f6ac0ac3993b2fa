"""The data connection to the hub: one WebSocket, many streams (procs/streams.py), made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import Callable

import aiohttp
from aiohttp import ClientWSTimeout, WSMsgType, WSServerHandshakeError

from procs import log
from procs.errors import LinkLost, Refused
from procs.messages import TicketGrant
from procs.streams import Link, Stream
from procs.wire.mux1 import MuxLimits

SUBPROTOCOL = "planaria.mux1"
MAX_MESSAGE = 1024 * 1024 + 8  # the largest frame that can be agreed on
SEND_LIMIT_S = 25.0  # for which the hub may take nothing
CONNECT_LIMIT_S = 10.0
QUIET_S, DEAD_S = 10.0, 25.0
CLOSE_LIMIT_S = 1.0
BROKE_THE_RULES, GOING_AWAY = 1002, 1001
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


class Connection:
    """One data connection, from the ticket to its end."""

    def __init__(self, session: aiohttp.ClientSession, grant: TicketGrant, accept: Callable[[Stream], None]) -> None:
        self._session, self._grant, self._accept = session, grant, accept
        self._loop = asyncio.get_running_loop()
        self._heard_at = 0.0
        self._sending_since = math.inf  # watched, since a timer for each frame would cost as much as the frame

    async def carry(self) -> str:
        """Serve what the hub opens until the connection ends; returns why it did. Raises LinkLost if there was none."""
        ws = await self._connect()
        limits = MuxLimits()

        async def send(frame: bytes) -> None:
            self._sending_since = self._loop.time()
            await ws.send_bytes(frame)
            self._sending_since = math.inf

        link = Link(send, opens="even", ours=limits, theirs=limits, accept=self._accept)
        self._heard_at = self._loop.time()
        log.info("connected to the hub", url=self._grant.url)
        works = [asyncio.create_task(work) for work in (self._read(ws, link), self._write(link), self._watch(link))]
        code, reason = GOING_AWAY, ""
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            code, reason = next(iter(done)).result()
        finally:
            link.lost("the connection to the hub is gone")
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_LIMIT_S):
                    await ws.close(code=code, message=reason.encode()[:120])
        return reason

    async def _connect(self) -> aiohttp.ClientWebSocketResponse[bool]:
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                ws = await self._session.ws_connect(
                    self._grant.url,
                    headers={"Authorization": f"Bearer {self._grant.ticket}"},
                    protocols=(SUBPROTOCOL,),
                    compress=0,
                    max_msg_size=MAX_MESSAGE,
                    timeout=ClientWSTimeout(ws_close=CLOSE_LIMIT_S),
                )
        except WSServerHandshakeError as error:
            raise LinkLost(f"the hub takes no data connection: {error.status} {error.message}") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise LinkLost(f"no data connection: {error or 'no answer in time'}") from None
        sock: socket.socket | None = ws.get_extra_info("socket")
        if sock is not None:
            for level, name, value in _TCP_OPTIONS:
                with contextlib.suppress(OSError):
                    sock.setsockopt(level, name, value)
        return ws

    async def _read(self, ws: aiohttp.ClientWebSocketResponse[bool], link: Link) -> tuple[int, str]:
        """Take the hub's frames; returns what to close with, and why."""
        try:
            while (message := await ws.receive()).type is WSMsgType.BINARY:
                self._heard_at = self._loop.time()
                link.received(message.data)
        except Refused as reason:
            return BROKE_THE_RULES, f"the hub broke the protocol: {reason}"
        if message.type is WSMsgType.TEXT:
            return BROKE_THE_RULES, "the hub sent text"
        said = message.extra if message.type is WSMsgType.CLOSE else ws.exception()
        return GOING_AWAY, f"the hub closed: {said or ws.close_code}"

    async def _write(self, link: Link) -> tuple[int, str]:
        try:
            await link.write()
        except (ConnectionError, aiohttp.ClientError, TimeoutError) as error:
            return GOING_AWAY, f"the connection broke: {error or type(error).__name__}"
        return GOING_AWAY, "it takes less than it asks for"

    async def _watch(self, link: Link) -> tuple[int, str]:
        while (quiet_s := self._loop.time() - self._heard_at) < DEAD_S:
            if self._loop.time() - self._sending_since > SEND_LIMIT_S:
                return GOING_AWAY, f"the hub took nothing for {SEND_LIMIT_S:g} s"
            if quiet_s >= QUIET_S:
                link.ping(os.urandom(8))
            await asyncio.sleep(QUIET_S / 4)
        return GOING_AWAY, f"the hub was silent for {DEAD_S:g} s"
