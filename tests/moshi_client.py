"""A client of the published speech protocol (moshi-server's), independent of ours: written from its description alone.

Binary frames, each a msgpack map with `type`. What is received stays as it came: dicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

STALE = 10  # packets that may come before Ready
KEY = "kyutai-api-key"


class Gone(Exception):
    """The service has closed, or did not get ready; the text says how."""


class Full(Gone):
    """It has no room: another instance may."""


def packed(kind: str, **fields: Any) -> bytes:
    """A message."""
    return msgspec.msgpack.encode({"type": kind, **fields})


def audio(floats: list[float]) -> bytes:
    """Sound with single floats, number by number."""
    body = b"".join(struct.pack(">Bf", 0xCA, number) for number in floats)
    return b"\x82\xa4type\xa5Audio\xa3pcm" + struct.pack(">BI", 0xDD, len(floats)) + body


class Session:
    """One connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.received: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """A message."""
        await self.socket.send(packed(kind, **fields))

    async def next(self, within_s: float = 20.0) -> dict[str, Any]:
        """The next message. Raises Gone once it is closed."""
        try:
            async with asyncio.timeout(within_s):
                frame = await self.socket.recv()
        except ConnectionClosed as closed:
            raise Gone(str(closed)) from None
        assert isinstance(frame, bytes)
        message: dict[str, Any] = msgspec.msgpack.decode(frame)
        self.received.append(message)
        return message

    async def ready(self, within_s: float = 20.0) -> None:
        """Wait until there is room. Raises Gone, Full."""
        for _ in range(STALE + 1):
            message = await self.next(within_s)
            if message["type"] == "Ready":
                return
            if message["type"] == "Error":
                raise (Full if message["message"] == "no free channels" else Gone)(message["message"])
        raise Gone("never ready")

    async def rest(self, within_s: float = 60.0) -> list[dict[str, Any]]:
        """Everything until it closes."""
        found = []
        with contextlib.suppress(Gone):
            while True:
                found.append(await self.next(within_s))
        return found


@asynccontextmanager
async def session(url: str, key: str = "public_token") -> AsyncIterator[Session]:
    """Connect, such as to ws://127.0.0.1:8089/api/tts_streaming?format=PcmMessagePack."""
    async with connect(url, additional_headers={KEY: key}, max_size=None, compression=None) as socket:
        yield Session(socket)


async def spoken(url: str, words: list[str], *, voice: str = "slt", key: str = "public_token") -> list[dict[str, Any]]:
    """Have a reply spoken; all that came after Ready."""
    async with session(f"{url}/api/tts_streaming?format=PcmMessagePack&voice={voice}", key) as tts:
        await tts.ready()
        for word in words:
            await tts.send("Text", text=word)
        await tts.send("Eos")
        return await tts.rest()
