"""What the two kinds of ends of a pair share (our_end.py, plain_end.py): how they are spoken to, and what they measure
on a channel.

An end reads and writes lines of JSON: objects go to the other end, whatever they are; a list [what, how much] asks the
side that offers for a measurement, and any other line out is an answer. The first is "ready". At the end of stdin an
end ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from procs import prctl

HIGH_BYTES, LOW_BYTES = 1 << 18, 1 << 16  # of what waits in a channel
MESSAGE = bytes(16 * 1024)
PING = b"p" * 64
OFFER = "offer"
Json = dict[str, Any]
Measure = Callable[[float], Awaitable[Any]]


class Lines:
    """What comes from the other end, and what is asked of us."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Json] = asyncio.Queue()
        self._asked: asyncio.Queue[tuple[str, float] | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    def say(self, what: object) -> None:
        """Write a line."""
        print(json.dumps(what), flush=True)

    async def asked(self) -> AsyncIterator[tuple[str, float]]:
        """What is to be measured, until nobody asks any more."""
        self.say("ready")
        while asked := await self._asked.get():
            yield asked

    async def _read(self) -> None:
        lines = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            found = json.loads(line)
            if isinstance(found, dict):
                self.frames.put_nowait(found)
            else:
                self._asked.put_nowait((found[0], found[1]))
        self._asked.put_nowait(None)


async def measure(lines: Lines, channel: Any, *, offers: bool, **more: Measure) -> None:
    """Do what is asked with an open channel, or `more`; the side that does not offer helps."""
    if not offers:
        _help(channel)
    measures: dict[str, Measure] = {"bulk": partial(_bulk, channel), "pings": partial(_pings, channel), **more}
    async for what, much in lines.asked():
        lines.say(await measures[what](much))


def _help(channel: Any) -> None:
    """Send pings back, and say how much has come of the rest since it was asked last."""
    came = 0

    def message(text: bytes | str) -> None:
        nonlocal came
        if isinstance(text, str):
            channel.send(str(came))
            came = 0
        elif len(text) == len(PING):
            channel.send(text)
        else:
            came += len(text)

    channel.on("message", message)


async def _bulk(channel: Any, seconds: float) -> float:
    """Mbit/s that came to the other side, until the last byte."""
    came: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    room = asyncio.Event()
    channel.on("bufferedamountlow", room.set)
    channel.once("message", came.set_result)
    since_s, sent = time.monotonic(), 0
    while time.monotonic() - since_s < seconds:
        room.clear()
        while channel.bufferedAmount < HIGH_BYTES:
            channel.send(MESSAGE)
            sent += len(MESSAGE)
        await room.wait()
    channel.send("how much?")
    assert int(await came) == sent, "a reliable channel has lost something"
    channel.remove_listener("bufferedamountlow", room.set)
    return sent * 8e-6 / (time.monotonic() - since_s)


async def _pings(channel: Any, count: float) -> list[float]:
    """Round trips in microseconds."""
    back: asyncio.Queue[Any] = asyncio.Queue()
    channel.on("message", back.put_nowait)
    took = []
    for _ in range(int(count)):
        since_s = time.perf_counter()
        channel.send(PING)
        await back.get()
        took.append((time.perf_counter() - since_s) * 1e6)
    channel.remove_listener("message", back.put_nowait)
    return took


def run(main: Callable[[Lines, list[str]], Awaitable[None]], loops: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Be an end, with what stands on the command line, until nobody asks any more or our parent dies."""
    prctl.bind_to_parent()

    async def whole() -> None:
        await main(Lines(), sys.argv[1:])

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(whole())
