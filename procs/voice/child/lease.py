"""Whether the device is still our backend's to call. The leader ends its children before their lease is over, but one
that stands still can't, and another backend would call beside them."""

from __future__ import annotations

import asyncio
import time

LOOK_S = 0.1


class Lease:
    """`until`: in seconds of CLOCK_BOOTTIME; None: nobody else may call."""

    def __init__(self, until: float | None) -> None:
        self.until = until

    @property
    def holds(self) -> bool:
        """Whether it is not over."""
        return self.until is None or time.clock_gettime(time.CLOCK_BOOTTIME) < self.until

    async def held(self) -> None:
        """Wait until it holds: who was born late hears of one that was renewed meanwhile."""
        while not self.holds:  # noqa: ASYNC110 - a clock tells nobody
            await asyncio.sleep(LOOK_S)

    async def over(self) -> None:
        """Wait until it held and does no more."""
        await self.held()
        while self.holds:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
