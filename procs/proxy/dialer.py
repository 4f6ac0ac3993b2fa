"""WebSockets to upstreams, by aiohttp: the only part of a proxy that needs it, imported when one is first asked for."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import ClientWSTimeout, WSMsgType, WSServerHandshakeError
from multidict import CIMultiDict
from yarl import URL

from procs.errors import UpstreamFailed
from procs.proxy import headers
from procs.proxy.policy import Allowed
from procs.wire import fields
from procs.wire.mux1 import Code

MAX_MESSAGE = 16 * 1024 * 1024  # bytes
CLOSE_LIMIT_S = 0.5
RETRY_S = 0.1


class Peer:
    """An upstream's end of a WebSocket."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._connection = connection
        self.subprotocol = connection.protocol

    @property
    def close_code(self) -> int:
        """What it closed with; 1006 for a connection that broke."""
        return self._connection.close_code or 1006

    async def send(self, data: bytes, *, is_text: bool) -> bool:
        """Send a message; False if it is gone, of which whoever receives hears more."""
        try:
            await self._connection.send_frame(data, WSMsgType.TEXT if is_text else WSMsgType.BINARY)
        except (ConnectionError, aiohttp.ClientError):
            return False
        return True

    async def receive(self) -> tuple[bytes, bool] | None:
        """The next message and whether it is text; None when there will be none. Pings are answered underneath."""
        message = await self._connection.receive()
        if message.type is WSMsgType.TEXT:
            return bytes(message.data), True
        if message.type is WSMsgType.BINARY:
            return message.data, False
        return None

    async def close(self, code: int, reason: bytes = b"") -> None:
        """End it; it has CLOSE_LIMIT_S to agree."""
        await self._connection.close(code=code, message=reason)


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

    async def dial(self, allowed: Allowed, pairs: fields.Pairs, deadline: float) -> Peer:
        """A connection, also to an upstream that has to come back first. Raises UpstreamFailed or Refused."""
        loop = asyncio.get_running_loop()
        until = min(deadline, loop.time() + allowed.first_byte_s)
        offered = headers.subprotocols(pairs)
        onward = CIMultiDict(headers.onward(allowed.upstream, pairs))
        url = URL(f"http://{allowed.upstream.authority}{allowed.target}", encoded=True)
        while True:
            try:
                async with asyncio.timeout_at(until):
                    connection = await self._connector().ws_connect(
                        url,
                        protocols=offered,
                        headers=onward,
                        max_msg_size=MAX_MESSAGE,
                        timeout=ClientWSTimeout(ws_close=CLOSE_LIMIT_S),
                        decode_text=False,
                    )
                return Peer(connection)
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
