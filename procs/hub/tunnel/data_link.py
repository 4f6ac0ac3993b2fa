"""/ws/data: the connections that carry a device's streams. Each is a WebSocket of one of the device's proxies."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import hdrs, web

from procs import log
from procs.carrier import CLOSE_LIMIT_S, Carrier, carry
from procs.hub.state import HUB, now
from procs.streams.link import Link
from procs.wire.mux1 import SUBPROTOCOL, MuxLimits

OURS = MuxLimits()
MAX_LINKS = 16  # of one device, that is: proxies, and those of before that have not yet been found dead
BROKE_THE_RULES = 1002


async def socket(request: web.Request) -> web.StreamResponse:
    """One data connection, for as long as it lasts."""
    hub = request.app[HUB]
    bearer = hub.tickets.take(request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer "), now())
    if bearer is None:
        hub.counts.refuse("data connection without a good ticket")
        return web.json_response({"detail": "Invalid ticket"}, status=401)
    device_id, instance = bearer.device_id, bearer.holder
    handshake = web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False)
    await handshake.prepare(request)
    if not hub.presence.takes(device_id, instance):
        await _close(handshake, 1012, "Replaced by new connection")
        return handshake
    if len(hub.presence.links(device_id)) >= MAX_LINKS:
        hub.counts.refuse("more data connections than a device may have", device=device_id)
        await _close(handshake, 1013, "Too many data connections")
        return handshake
    control = hub.presence.control(device_id)
    served = Served(request, (control and control.mux) or MuxLimits())
    hub.presence.add_link(device_id, instance, served.link, served.drop)
    log.info("data connection", device_id=device_id)
    try:
        code, reason = await carry(served.link, served.carrier)
    finally:
        hub.presence.remove_link(device_id, instance, served.link)
        served.link.lost("the connection to the device broke")
    if code == BROKE_THE_RULES:
        hub.counts.refuse("data connection that broke the protocol", device=device_id, error=reason)
    log.info("data connection over", device_id=device_id, reason=reason)
    await served.carrier.close(code, reason)
    return handshake


async def _close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await socket.close(code=code, message=reason.encode()[:120])


class Served:
    """A connection that aiohttp has made, and that is ours from now on."""

    def __init__(self, request: web.Request, theirs: MuxLimits) -> None:
        self.carrier = Carrier(lambda message: self.link.received(message))
        self.carrier.on_lost = request.protocol.connection_lost  # aiohttp hears of nothing else any more
        self.link = Link(self.carrier.send, opens="odd", ours=OURS, theirs=theirs)
        if request.transport is None:
            raise ConnectionResetError("gone during the handshake")
        self.carrier.take_over(request.transport)

    def drop(self, code: int, reason: str) -> None:
        """Have it end."""
        if not self.carrier.over.done():
            self.carrier.over.set_result((code, reason))
