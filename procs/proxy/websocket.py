"""WebSockets: one stream of the hub and one connection to an upstream, message by message in both directions.

Each end answers pings of its own. A close frame passes, with its code; a connection that breaks is told the viewer as
"service restart", so that it comes again.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from procs.errors import Refused, UpstreamFailed
from procs.proxy.live import Messages
from procs.proxy.outlet import Outlet, both
from procs.proxy.policy import Allowed
from procs.streams.stream import Stream
from procs.wire import fields
from procs.wire.mux1 import FIN, MORE, TEXT, Code, Head, cost

if TYPE_CHECKING:
    from procs.proxy.dialer import Dialer, Peer

MAX_FROM_VIEWER = 1024 * 1024  # bytes of one message
LAST_WORDS_S = 1.0  # for what an upstream still says after the viewer has closed
NORMAL, GOING_AWAY, BROKEN, RESTART = 1000, 1001, 1006, 1012
_CODE = struct.Struct(">H")
_CODES = frozenset(range(1000, 1015)) - {1004, 1005, 1006}  # that may stand in a frame


def dialer_class() -> type[Dialer]:
    """What opens WebSockets. Importing it takes 0.3 s, in which a proxy that was killed already serves all else."""
    from procs.proxy.dialer import Dialer

    return Dialer


async def serve(dialer: Dialer, stream: Stream, allowed: Allowed, pairs: fields.Pairs, deadline: float) -> None:
    """Join a stream with an upstream's WebSocket until either ends. Raises UpstreamFailed, StreamReset, LinkLost."""
    try:
        peer = await dialer.dial(allowed, pairs, deadline)
    except Refused as reason:
        raise UpstreamFailed(Code.PROTOCOL, str(reason), status=400) from None
    try:
        stream.send_head(Head(101, subprotocol=peer.subprotocol))
        outlet = Outlet(stream) if allowed.is_live else None
        viewer = _Viewer()
        await _join(_up(stream, peer, viewer), _down(stream, peer, viewer, outlet))
        stream.finish()
    finally:
        await peer.close(GOING_AWAY)


async def _join(upward: Coroutine[None, None, None], downward: Coroutine[None, None, None]) -> None:
    """Run both ways until the upstream has closed, or does not in time after the viewer has. Raises what they raise."""
    up, down = asyncio.ensure_future(upward), asyncio.ensure_future(downward)
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and up.exception() is None:
            await asyncio.wait((down,), timeout=LAST_WORDS_S)
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


async def _up(stream: Stream, peer: Peer, viewer: _Viewer) -> None:
    """From the viewer to the upstream, until the viewer closes."""
    pieces: list[bytes] = []
    size = 0
    while (chunk := await stream.read()) is not None:
        if chunk.flags & FIN:
            viewer.closed_with = _close_code(bytes(chunk.data[:2]))
            await peer.close(viewer.closed_with, bytes(chunk.data[2:125]))
            return
        pieces.append(bytes(chunk.data))
        size += cost(len(chunk.data))  # many empty pieces are many, too
        if size > MAX_FROM_VIEWER:
            raise UpstreamFailed(Code.PROTOCOL, "the viewer's message is too large")
        if chunk.flags & MORE:
            continue
        message, pieces, size = b"".join(pieces), [], 0
        if not await peer.send(message, is_text=bool(chunk.flags & TEXT)):
            return  # whoever reads it will find out, and say so
    viewer.closed_with = NORMAL
    await peer.close(NORMAL)


def _close_code(data: bytes) -> int:
    """A code that may be sent: RFC 6455 keeps some for those who got none."""
    code = _CODE.unpack(data)[0] if len(data) == 2 else NORMAL
    return code if code in _CODES or 3000 <= code < 5000 else NORMAL


async def _down(stream: Stream, peer: Peer, viewer: _Viewer, outlet: Outlet | None) -> None:
    """From the upstream to the viewer, until the upstream closes."""
    if outlet is None:
        while (unit := await peer.receive()) is not None:
            await stream.write(unit[0], TEXT if unit[1] else 0)
    else:
        await both(_read(peer, outlet), outlet.hand_on())
    code = RESTART if peer.close_code == BROKEN else _close_code(_CODE.pack(peer.close_code))
    stream.finish(_CODE.pack(code if viewer.closed_with is None else viewer.closed_with))


async def _read(peer: Peer, outlet: Outlet) -> None:
    messages = Messages()
    while (message := await peer.receive()) is not None:
        unit = messages.unit(message[0], is_text=message[1])
        await outlet.put(unit)
    outlet.end()
