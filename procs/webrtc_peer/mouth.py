"""What a viewer says, to the loudspeaker of a source: RTP of G.711 to go2rtc over RTSP, only while somebody talks.

go2rtc takes such a track where a query asks for one, and finds who plays it: a camera, or a program with
`#backchannel=1`.
Source: go2rtc's query `backchannel`; RFC 2326 10.12 (interleaved).
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections import deque
from typing import NamedTuple

from procs import log
from procs.errors import LinkLost, Refused
from procs.webrtc_peer import rtsp
from procs.webrtc_peer.rtsp_login import Server

CODECS = ("pcma", "pcmu")
RATE = 8000
QUEUE = 25  # half a second of packets, while the connection is made
MAX_PIECE = 1200  # bytes
QUIET_S = 2.0  # then the connection ends, and with it whatever go2rtc has started for it
RETRY_S = 1.0
_HEADER = struct.Struct(">cBHBBHII")
_SOURCE = 0x504C414E


class Piece(NamedTuple):
    """What one packet of a viewer brought."""

    number: int
    time: int
    data: bytes


class Mouth:
    """Of one session. `codec`: what the viewer was told to speak."""

    def __init__(self, at: Server, stream: str, codec: str) -> None:
        self._at, self._stream, self._codec = at, stream, codec
        self._pieces: deque[Piece] = deque(maxlen=QUEUE)
        self._came = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None
        self._not_before = float("-inf")
        self.sent = 0

    def push(self, piece: Piece) -> None:
        """Have this said. What can't be said soon is left out."""
        if len(piece.data) > MAX_PIECE or time.monotonic() < self._not_before:
            return
        self._pieces.append(piece)
        self._came.set()
        if self._speaking is None:
            self._speaking = asyncio.ensure_future(self._speak())

    async def _speak(self) -> None:
        connection = None
        try:
            async with asyncio.timeout(rtsp.ANSWER_S):
                connection, track = await self._connect()
                channel = await _set_up(connection, track)
            log.info("a viewer talks", stream=self._stream, codec=self._codec)
            await self._say_all(connection, track.payload_type, channel)
        except (OSError, LinkLost, Refused, TimeoutError) as error:
            log.warning("what a viewer says is not heard", stream=self._stream, why=str(error) or "too slow")
            self._not_before = time.monotonic() + RETRY_S
        finally:
            self._speaking = None
            self._pieces.clear()
            if connection:
                connection.close()

    async def _connect(self) -> tuple[rtsp.Connection, rtsp.Track]:
        base = f"rtsp://{self._at.host}:{self._at.port}/{self._stream}"
        # go2rtc describes nothing without something to be seen; it is not set up.
        asked = f"{base}?video&backchannel={self._codec}/{RATE}"
        connection, tracks = await rtsp.description(self._at, asked, base)
        track = next((each for each in tracks if each.codec == self._codec), None)
        if not track:
            connection.close()
            raise LinkLost("the source takes no sound")
        return connection, track

    async def _say_all(self, connection: rtsp.Connection, payload_type: int, channel: int) -> None:
        while not connection.over.done():
            while self._pieces:
                number, ticks, data = self._pieces.popleft()
                connection.write(
                    _HEADER.pack(b"$", channel, 12 + len(data), 0x80, payload_type, number, ticks, _SOURCE) + data
                )
                self.sent += 1
            self._came.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._came.wait()
            except TimeoutError:
                return
        await connection.over


async def _set_up(connection: rtsp.Connection, track: rtsp.Track) -> int:
    """The channel on which it is to be sent."""
    answer = await connection.ask("SETUP", track.control, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
    channel = re.search(r"interleaved=(\d{1,3})", answer.headers.get("transport", ""))
    if answer.status != 200 or not channel or int(channel[1]) > 255:
        raise LinkLost(f"go2rtc answered SETUP with {answer.status}")
    session = answer.headers.get("session", "").partition(";")[0]
    await connection.ask("PLAY", track.control.rpartition("/")[0], f"Session: {session}")
    return int(channel[1])
