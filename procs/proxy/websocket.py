"""WebSockets: one stream of the hub and one connection to an upstream, message by message in both directions.

Each end answers pings of its own. A close frame passes, with its code; a connection that breaks is told the viewer as
"service restart", so that it comes again.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine

import aiohttp
from aiohttp import ClientWSTimeout, WSMsgType, WSServerHandshakeError
from multidict import CIMultiDict
from yarl import URL

from procs.errors import Refused, UpstreamFailed
from procs.proxy import headers
from procs.proxy.live import Messages
from procs.proxy.outlet import Outlet, both
from procs.proxy.policy import Allowed
from procs.streams import Stream
from procs.wire import fields
from procs.wire.mux1 import FIN, MORE, TEXT, Code, Head

MAX_FROM_UPSTREAM = 16 * 1024 * 1024  # bytes of one message
MAX_FROM_VIEWER = 1024 * 1024
CLOSE_LIMIT_S = 0.5
RETRY_S = 0.1
NORMAL, GOING_AWAY, TOO_BIG, RESTART = 1000, 1001, 1009, 1012
_CODE = struct.Struct(">H")
_CODES = frozenset(range(1000, 1015)) - {1004, 1005, 1006}  # that may stand in a frame


async def _refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """An upstream must not send us elsewhere: elsewhere has no rules."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise WSServerHandshakeError(response.request_info, (), status=502, message="a redirect")
    return response


class Dialer:
    """Opens WebSockets to upstreams."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def dial(
        self, allowed: Allowed, pairs: fields.Pairs, deadline: float
    ) -> aiohttp.ClientWebSocketResponse[bool]:
        """A connection, also to an upstream that has to come back first. Raises UpstreamFailed or Refused."""
        loop = asyncio.get_running_loop()
        until = min(deadline, loop.time() + allowed.first_byte_s)
        offered = headers.subprotocols(pairs)
        onward = CIMultiDict(headers.onward(allowed.upstream, pairs))
        url = URL(f"http://{allowed.upstream.authority}{allowed.target}", encoded=True)
        while True:
            try:
                async with asyncio.timeout_at(until):
                    return await self._connector().ws_connect(
                        url,
                        protocols=offered,
                        headers=onward,
                        max_msg_size=MAX_FROM_UPSTREAM,
                        timeout=ClientWSTimeout(ws_close=CLOSE_LIMIT_S),
                        decode_text=False,
                    )
            except WSServerHandshakeError as error:
                status = error.status if error.status >= 400 else 502
                raise UpstreamFailed(Code.REFUSED, "the upstream opens no WebSocket", status=status) from None
            except TimeoutError:
                raise UpstreamFailed(Code.TIMEOUT, "no answer in time", status=504) from None
            except (aiohttp.ClientError, OSError) as error:
                if loop.time() + RETRY_S >= until:
                    raise UpstreamFailed(Code.NOT_SENT, f"{allowed.upstream.name} takes no connection") from error
            await asyncio.sleep(RETRY_S)

    def _connector(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False),
                middlewares=(_refuse_redirects,),
                timeout=aiohttp.ClientTimeout(total=None),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()


async def serve(dialer: Dialer, stream: Stream, allowed: Allowed, pairs: fields.Pairs, deadline: float) -> None:
    """Join a stream with an upstream's WebSocket until either ends. Raises UpstreamFailed, StreamReset, LinkLost."""
    try:
        connection = await dialer.dial(allowed, pairs, deadline)
    except Refused as reason:
        raise UpstreamFailed(Code.PROTOCOL, str(reason), status=400) from None
    try:
        stream.send_head(Head(101, subprotocol=connection.protocol))
        outlet = Outlet(stream) if allowed.is_live else None
        viewer = _Viewer()
        await _join(_up(stream, connection, viewer), _down(stream, connection, viewer, outlet))
        stream.finish()
    finally:
        await connection.close(code=GOING_AWAY)


async def _join(upward: Coroutine[None, None, None], downward: Coroutine[None, None, None]) -> None:
    """Run both ways until the upstream has closed, or does not in time after the viewer has. Raises what they raise."""
    up, down = asyncio.ensure_future(upward), asyncio.ensure_future(downward)
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and up.exception() is None:
            await asyncio.wait((down,), timeout=2 * CLOSE_LIMIT_S)
    finally:
        up.cancel()
        down.cancel()
        ends = await asyncio.gather(up, down, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


class _Viewer:
    """Whether the viewer has closed, and with which code."""

    __slots__ = ("closed_with",)

    def __init__(self) -> None:
        self.closed_with: int | None = None


async def _up(stream: Stream, connection: aiohttp.ClientWebSocketResponse[bool], viewer: _Viewer) -> None:
    """From the viewer to the upstream, until the viewer closes."""
    pieces: list[bytes] = []
    size = 0
    while (chunk := await stream.read()) is not None:
        if chunk.flags & FIN:
            viewer.closed_with = _close_code(bytes(chunk.data[:2]))
            await connection.close(code=viewer.closed_with, message=bytes(chunk.data[2:125]))
            return
        pieces.append(bytes(chunk.data))
        size += len(chunk.data)
        if size > MAX_FROM_VIEWER:
            raise UpstreamFailed(Code.PROTOCOL, "the viewer's message is too large")
        if chunk.flags & MORE:
            continue
        message, pieces, size = b"".join(pieces), [], 0
        try:
            await connection.send_frame(message, WSMsgType.TEXT if chunk.flags & TEXT else WSMsgType.BINARY)
        except (ConnectionError, aiohttp.ClientError):
            return  # whoever reads it will find out, and say so
    viewer.closed_with = NORMAL
    await connection.close(code=NORMAL)


def _close_code(data: bytes) -> int:
    """A code that may be sent: RFC 6455 keeps some for those who got none."""
    code = _CODE.unpack(data)[0] if len(data) == 2 else NORMAL
    return code if code in _CODES or 3000 <= code < 5000 else NORMAL


async def _down(
    stream: Stream, connection: aiohttp.ClientWebSocketResponse[bool], viewer: _Viewer, outlet: Outlet | None
) -> None:
    """From the upstream to the viewer, until the upstream closes."""
    if outlet is None:
        while (unit := await _next(connection)) is not None:
            await stream.write(unit[0], TEXT if unit[1] else 0)
    else:
        await both(_read(connection, outlet), outlet.hand_on())
    said = connection.close_code or 1006  # which stands for a connection that broke
    code = RESTART if said == 1006 else _close_code(_CODE.pack(said))
    stream.finish(_CODE.pack(code if viewer.closed_with is None else viewer.closed_with))


async def _read(connection: aiohttp.ClientWebSocketResponse[bool], outlet: Outlet) -> None:
    messages = Messages()
    while (message := await _next(connection)) is not None:
        unit = messages.unit(message[0], is_text=message[1])
        await outlet.put(unit)
    outlet.end()


async def _next(connection: aiohttp.ClientWebSocketResponse[bool]) -> tuple[bytes, bool] | None:
    """The next message and whether it is text; None when there will be none."""
    message = await connection.receive()
    if message.type is WSMsgType.TEXT:
        return bytes(message.data), True
    if message.type is WSMsgType.BINARY:
        return message.data, False
    return None
