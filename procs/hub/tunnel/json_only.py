"""Requests to devices that know only the published JSON frames: one message there, one back, each with a whole body."""

from __future__ import annotations

import base64
import binascii
import posixpath
import uuid
from collections.abc import AsyncIterator

from procs.errors import LinkLost, Refused
from procs.hub.devices.presence import Control
from procs.hub.tunnel.tunnel import DEADLINE_S, Answer, Request, TunnelError
from procs.wire.frames.device import ProxyHttp
from procs.wire.mux1 import Head

MAX_BODY = 1024 * 1024  # bytes
# Paths of go2rtc whose answers have no end, which such a device would wait for in vain.
_ENDLESS = frozenset(
    {"stream.mp4", "stream.mjpeg", "stream.ascii", "stream.ts", "stream.flv", "stream.aac", "stream.y4m", "ws"}
)


async def request(control: Control, wanted: Request) -> Answer:
    """The device's answer. Raises TunnelError."""
    if posixpath.basename(wanted.target.partition("?")[0]) in _ENDLESS:
        raise TunnelError(501, "this device has no data connection, and this path never ends", "not-sent")
    body = await _whole(wanted.body)
    # What is packed would be unpacked on the way by some of them, and still be called packed.
    headers = {name: value for name, value in wanted.headers if name.lower() != "accept-encoding"}
    ask = ProxyHttp(
        str(uuid.uuid4()),
        wanted.method,
        wanted.target,
        headers,
        base64.b64encode(body).decode() if body else None,
        int(1000 * DEADLINE_S),
    )
    try:
        found = await control.request_http(ask)
        data = base64.b64decode(found.body_b64, validate=True)
    except Refused as reason:
        raise TunnelError(503, str(reason), "not-sent") from None
    except TimeoutError:
        raise TunnelError(504, "Gateway Timeout", "" if wanted.is_safe else "unknown") from None
    except LinkLost:
        raise TunnelError(502, "the connection to the device broke", "" if wanted.is_safe else "unknown") from None
    except binascii.Error:
        raise TunnelError(502, "the device's answer is not base64") from None
    kept = [(name, value) for name, value in found.headers.items() if name.lower() != "content-length"]
    return Answer(Head(found.status, kept), data, None)


async def _whole(body: bytes | AsyncIterator[bytes]) -> bytes:
    if isinstance(body, bytes):
        return body
    found = bytearray()
    async for piece in body:
        found += piece
        if len(found) > MAX_BODY:
            raise TunnelError(413, f"this device takes bodies up to {MAX_BODY} bytes", "not-sent")
    return bytes(found)
