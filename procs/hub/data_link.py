"""/ws/data: the connections that carry a device's streams. Each is a WebSocket of one of the device's proxies."""

from __future__ import annotations

import asyncio
import contextlib
import time

from aiohttp import WSMsgType, hdrs, web

from procs import log
from procs.errors import Refused
from procs.hub.state import HUB, now
from procs.streams import Link
from procs.wire.mux1 import MuxLimits

SUBPROTOCOL = "planaria.mux1"
OURS = MuxLimits()
MAX_MESSAGE = 1024 * 1024 + 8  # the largest frame that can be agreed on
PING_AFTER_S = 10.0
DEAD_AFTER_S = 25.0
SEND_LIMIT_S = 25.0  # for which a device's connection may take nothing
CLOSE_LIMIT_S = 2.0
TURN_S = 2.5


async def socket(request: web.Request) -> web.StreamResponse:
    """One data connection, for as long as it lasts."""
    hub = request.app[HUB]
    bearer = hub.tickets.take(request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer "), now())
    if bearer is None:
        hub.counts.refuse("data connection without a good ticket")
        return web.json_response({"detail": "Invalid ticket"}, status=401)
    device_id, instance = bearer.device_id, bearer.instance
    connection = web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False, max_msg_size=MAX_MESSAGE)
    await connection.prepare(request)
    if not hub.presence.takes(device_id, instance):
        await _close(connection, 1012, "Replaced by new connection")
        return connection

    async def send(frame: bytes) -> None:
        async with asyncio.timeout(SEND_LIMIT_S):
            await connection.send_bytes(frame)

    control = hub.presence.control(device_id)
    link = Link(send, opens="odd", ours=OURS, theirs=(control and control.mux) or MuxLimits())
    served = Served(connection, link)
    hub.presence.add_link(device_id, instance, link, served.drop)
    log.info("data connection", device_id=device_id)
    try:
        code, reason = await served.until_over()
    finally:
        hub.presence.remove_link(device_id, instance, link)
        link.lost("the connection to the device broke")
    log.info("data connection over", device_id=device_id, reason=reason)
    await _close(connection, code, reason)
    return connection


async def _close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await socket.close(code=code, message=reason.encode()[:120])


class Served:
    """A connection that is read, written and watched at once."""

    def __init__(self, socket: web.WebSocketResponse, link: Link) -> None:
        self._socket, self._link = socket, link
        self._heard_at = time.monotonic()
        self._dropped: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def drop(self, code: int, reason: str) -> None:
        """Have it end."""
        if not self._dropped.done():
            self._dropped.set_result((code, reason))

    async def until_over(self) -> tuple[int, str]:
        """(close code, reason) once any of the three has ended it, or somebody has dropped it."""
        tasks = [asyncio.create_task(work) for work in (self._read(), self._write(), self._watch())]
        try:
            done, _ = await asyncio.wait((*tasks, self._dropped), return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> tuple[int, str]:
        try:
            async for message in self._socket:
                self._heard_at = time.monotonic()
                if message.type is not WSMsgType.BINARY:
                    raise Refused("only binary messages are taken here")
                self._link.received(message.data)
        except Refused as reason:
            log.warning("data connection broke the protocol", reason=str(reason))
            return 1002, str(reason)
        return 1000, "closed by the device"

    async def _write(self) -> tuple[int, str]:
        try:
            await self._link.write()
        except (TimeoutError, ConnectionError):
            return 1011, "it takes nothing any more"
        return 1008, "it asks for more than it takes"

    async def _watch(self) -> tuple[int, str]:
        while (silent_s := time.monotonic() - self._heard_at) < DEAD_AFTER_S:
            if silent_s > PING_AFTER_S:
                self._link.ping(bytes(8))
            await asyncio.sleep(TURN_S)
        return 1011, "silent for too long"
