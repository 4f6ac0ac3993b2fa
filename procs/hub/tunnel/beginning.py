"""The beginning of a device's answer: its head within a limit, and of its body what comes soon."""

from __future__ import annotations

import asyncio
from typing import Any

from procs.errors import StreamReset
from procs.streams.stream import Stream
from procs.wire.mux1 import Code, Head

GATHERED = 256 * 1024  # an answer up to this size is passed on whole or not at all
GATHER_LIMIT_S = 5.0


async def head(stream: Stream, limit_s: float, *, after: asyncio.Task[Any] | None = None) -> Head:
    """The head of an answer, within a limit that runs from the end of an upload on. Raises TimeoutError, StreamReset,
    LinkLost."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None
    is_late = False

    def expire() -> None:
        nonlocal is_late
        is_late = True
        stream.reset(Code.TIMEOUT)

    def start(_: object) -> None:
        nonlocal timer
        timer = loop.call_later(max(0.0, limit_s), expire)  # asyncio.timeout costs every request three times as much

    if after:
        after.add_done_callback(start)
    else:
        start(None)
    try:
        return await stream.head()
    except StreamReset:
        if is_late:
            raise TimeoutError from None
        raise
    finally:
        if after:
            after.remove_done_callback(start)
        if timer:
            timer.cancel()


async def gather(stream: Stream, head: Head) -> tuple[bytes, bool]:
    """The body, or its beginning if it is long or slow to come, and whether that is all of it."""
    length = next((value for name, value in head.headers if name.lower() == "content-length"), "")
    if length.isdecimal() and int(length) > GATHERED:
        return b"", False
    pieces: list[memoryview] = []
    if await _gather_more(stream, pieces, only_come=True):  # most answers come with their head
        return b"".join(pieces), True
    try:
        async with asyncio.timeout(GATHER_LIMIT_S):
            if await _gather_more(stream, pieces):
                return b"".join(pieces), True
    except TimeoutError:
        pass  # slow to come: whoever asked is to see what there is
    return b"".join(pieces), False


async def _gather_more(stream: Stream, pieces: list[memoryview], *, only_come: bool = False) -> bool:
    """Add what comes, up to GATHERED bytes, or what has come so far; returns whether the end has come with it."""
    size = sum(map(len, pieces))
    while size <= GATHERED and (stream.has_come or not only_come):
        if (chunk := await stream.read()) is None:
            return True
        pieces.append(chunk.data)
        size += len(chunk.data)
    return False
