"""Which instance of a speech service to use: several may be named, and a name may stand for several."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from procs.errors import Refused
from procs.voice.child.dial import Failed, dial, trusting, why
from procs.voice.child.figures import Figures
from procs.wire import moshi

EACH_S = 0.5  # while there is another to try
LAST_S = 3.0  # a busy machine answers late, and late is better than not at all
MOST = 3  # that are tried at a time
KEY = "kyutai-api-key"
PUBLIC_KEY = "public_token"  # as published: what is shown where no other was set
STALE = 10  # messages before Ready, as published
FULL = "has no room now"


class Missing(Exception):
    """None of them can be had; the text says why."""


class Names(NamedTuple):
    """Figures of a kind of service."""

    misses: str  # had no room
    hard_misses: str  # all else
    ping: str
    find: str


class _Full(Exception):
    pass


class Instances:
    """All of one kind. `problem`: why the last search found none, or ""."""

    def __init__(self, urls: list[str], key: str, side: moshi.Side[moshi.FromStt | moshi.FromTts], names: Names,
                 figures: Figures) -> None:  # fmt: skip
        self._urls, self._side, self._names, self._figures = urls, side, names, figures
        self._headers = {KEY: key or PUBLIC_KEY}
        self._tls: ssl.SSLContext | None = None  # made when it is needed
        self.problem = ""

    async def open(self, path: str) -> ClientConnection:
        """A connection to one that is ready. Raises Missing."""
        began = time.monotonic()
        found = await self._all()
        problem = "no address is set" if not self._urls else "nobody knows its name"
        for number, (url, host) in enumerate(found):
            within_s = LAST_S if number == len(found) - 1 else EACH_S
            try:
                ws = await self._one(url + path, host, within_s)
            except _Full:
                self._figures.add(self._names.misses)
                self._figures.add("worker_service_misses")
                problem = f"{_shown(url)} {FULL}"
            except Failed as failed:
                self._figures.add(self._names.hard_misses)
                self._figures.add("worker_hard_service_misses")
                problem = f"{_shown(url)} {failed}"
            else:
                self._figures.add(self._names.find, time.monotonic() - began)
                self.problem = ""
                return ws
        self._figures.add("worker_fatal_service_misses")
        self.problem = problem[:300]
        raise Missing(self.problem)

    async def _all(self) -> list[tuple[str, str]]:
        """Some of them in any order: the URL, and the address where its name has several."""
        found = [(url, host) for url in self._urls for host in await _hosts(url)]
        random.shuffle(found)
        return found[:MOST]

    async def _one(self, url: str, host: str, within_s: float) -> ClientConnection:
        began = time.monotonic()
        tls = trusting() if url.startswith("wss:") else None
        ws = await dial(
            url, within_s=within_s, max_bytes=moshi.MAX_BYTES, headers=self._headers, tls=tls, host=host
        )  # fmt: skip
        self._figures.add(self._names.ping, time.monotonic() - began)
        try:
            async with asyncio.timeout(began + within_s - time.monotonic()):
                await self._ready(ws)
        except BaseException as error:
            ws.transport.abort()
            if isinstance(error, TimeoutError):
                raise Failed(f"is not ready within {within_s:g} s") from None
            raise
        return ws

    async def _ready(self, ws: ClientConnection) -> None:
        """Wait until it says that there is room. Raises Failed, _Full."""
        try:
            for _ in range(STALE):
                message = moshi.decode(await ws.recv(), self._side)
                if isinstance(message, moshi.Ready):
                    return
                if isinstance(message, moshi.Error):
                    raise _Full if moshi.NO_CHANNELS in message.message else Failed(f"says: {message.message[:200]}")
        except ConnectionClosed as closed:
            raise Failed(why(closed)) from None
        except Refused as reason:
            raise Failed(f"says what is not understood: {reason}"[:200]) from None
        raise Failed("does not say that it is ready")


async def _hosts(url: str) -> list[str]:
    """The addresses of a URL's host; "" for the host itself, where that is one. As published, those of IPv4 if any."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host or host.replace(".", "").isdigit():
        return [""]
    try:
        async with asyncio.timeout(EACH_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return []
    addresses = {family: [str(each[4][0]) for each in found if each[0] == family] for family, *_ in found}
    return addresses.get(socket.AF_INET) or addresses.get(socket.AF_INET6) or []


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}"
