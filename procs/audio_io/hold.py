"""Whose turn it is: one backend at a time. A dead one gives way at once, a living one to nobody."""

from __future__ import annotations

import asyncio
from typing import Protocol

CHALLENGE_S = 1.0  # within which a living backend answers a ping


class Holder(Protocol):
    """A connection that holds the device."""

    async def answers(self, within_s: float) -> bool:
        """Whether its other side is alive."""

    async def end(self, why: str) -> None:
        """End it; returns once it touches nothing any more. Raises TimeoutError."""


class Hold:
    """Who holds the device."""

    def __init__(self) -> None:
        self._challenge = asyncio.Lock()
        self.holder: Holder | None = None

    async def take(self, newcomer: Holder) -> bool:
        """Make the newcomer the holder, unless another one lives. Several that come at once wait for each other. Raises
        TimeoutError."""
        async with self._challenge:
            if holder := self.holder:
                if await holder.answers(CHALLENGE_S):
                    return False
                await holder.end("another connection has taken its place")
            self.holder = newcomer
            return True

    def give_up(self, holder: Holder) -> None:
        """It has ended."""
        if self.holder is holder:
            self.holder = None
