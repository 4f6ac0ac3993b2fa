"""Which streams go2rtc has. HTTP by hand: one GET, version 1.0, so that the answer ends with the connection."""

from __future__ import annotations

import asyncio
import base64

import msgspec

from procs.errors import Refused
from procs.webrtc_peer.options import Go2rtc

LIMIT_S = 3.0
MAX_BYTES = 8_000_000
CAMERA = "camera"  # a stream of this name is what is watched, if nobody says otherwise
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def preferred(names: list[str]) -> str:
    """The stream for who asks for none."""
    return CAMERA if CAMERA in names else names[0]


async def streams(api: Go2rtc) -> list[str]:
    """Their names, in its order. Raises Refused with what is wrong."""
    try:
        async with asyncio.timeout(LIMIT_S):
            answer = await _get(api)
    except (OSError, TimeoutError) as error:
        raise Refused(f"go2rtc does not answer: {error or 'too slow'}") from None
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [b"200"]:
        raise Refused(f"go2rtc does not tell its streams: {head[:80].decode(errors='replace')}")
    try:
        return list(_DECODER.decode(body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"whoever answers there is no go2rtc: {error}"[:200]) from None


async def _get(api: Go2rtc) -> bytes:
    login = f"Authorization: Basic {base64.b64encode(api.login.encode()).decode()}\r\n" if api.login else ""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    try:
        writer.write(f"GET /api/streams HTTP/1.0\r\nHost: {api.host}\r\n{login}\r\n".encode())
        answer = bytearray()
        while len(answer) < MAX_BYTES and (piece := await reader.read(65536)):
            answer += piece
        return bytes(answer)
    finally:
        writer.close()
