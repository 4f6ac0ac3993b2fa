"""A way to send for procs/streams.Link where a transport takes but one message at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


def one_by_one(send: Callable[[bytes], Awaitable[None]]) -> Callable[[list[bytes]], Awaitable[None]]:
    """Send each of many by `send`."""

    async def send_each(messages: list[bytes]) -> None:
        for message in messages:
            await send(message)

    return send_each
