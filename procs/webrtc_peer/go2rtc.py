"""Which streams go2rtc has, and to which of them one can speak. HTTP by hand: one GET,
version 1.0, so that the answer ends with the connection."""

from __future__ import annotations

import asyncio
import base64
from typing import TypeVar
from urllib.parse import quote

import msgspec

from procs.errors import Refused
from procs.webrtc_peer.mouth import CODECS, RATE
from procs.webrtc_peer.options import Go2rtc
from procs.webrtc_peer.rtsp_login import User

LIMIT_S = 3.0
MAX_BYTES = 8_000_000
CAMERA = "camera"  # a stream of this name is what is watched, if nobody says otherwise
T = TypeVar("T")


class _Codec(msgspec.Struct):
    codec: str
    rate: int


class _Backchannel(msgspec.Struct):
    codecs: list[_Codec] = []
    transcode: bool = False


class _Offers(msgspec.Struct):
    backchannel: _Backchannel | None = None


class _Producer(msgspec.Struct):
    url: str = ""


class _Stream(msgspec.Struct):
    producers: list[_Producer] = []
    offers: _Offers | None = None


def preferred(names: list[str]) -> str:
    """The stream for who asks for none."""
    return CAMERA if CAMERA in names else names[0]


async def streams(api: Go2rtc, user: User | None = None) -> list[str]:
    """Their names, in its order. Raises Refused with what is wrong."""
    return list(await _ask(api, user, "/api/streams", dict[str, msgspec.Raw]))


async def hears(api: Go2rtc, user: User | None, stream: str) -> str:
    """The codec in which somebody can speak to a stream that is running; "" where nobody listens, or this go2rtc passes
    no speech on by RTSP. Raises Refused."""
    said = await _ask(api, user, f"/api/streams?src={quote(stream, safe='')}", _Stream)
    if not said.offers:
        return ""
    listens = said.offers.backchannel
    if not listens:  # or it has not looked at that source yet, since nobody needed it
        is_source = any("backchannel=1" in each.url for each in said.producers)
        return CODECS[0] if is_source else ""
    native = [each.codec.lower() for each in listens.codecs if each.rate == RATE]
    return next((codec for codec in CODECS if codec in native), CODECS[0] if listens.transcode else "")


async def _ask(api: Go2rtc, user: User | None, path: str, kind: type[T]) -> T:
    try:
        async with asyncio.timeout(LIMIT_S):
            answer = await _get(api, path, user)
    except (OSError, TimeoutError) as error:
        raise Refused(f"go2rtc does not answer: {error or 'too slow'}") from None
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [b"200"]:
        raise Refused(f"go2rtc does not tell its streams: {head[:80].decode(errors='replace')}")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"whoever answers there is no go2rtc: {error}"[:200]) from None


async def _get(api: Go2rtc, path: str, user: User | None) -> bytes:
    login = f"Authorization: Basic {base64.b64encode(':'.join(user).encode()).decode()}\r\n" if user else ""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {api.host}\r\n{login}\r\n".encode())
        answer = bytearray()
        while len(answer) < MAX_BYTES and (piece := await reader.read(65536)):
            answer += piece
        return bytes(answer)
    finally:
        writer.close()
