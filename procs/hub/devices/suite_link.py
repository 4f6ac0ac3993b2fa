"""A device's suite over its control connection: how it is, and restarts. For devices that have said that they can."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from procs.errors import LinkLost, Refused
from procs.hub.viewers.peer import Peer
from procs.wire.frames.suite import Suite, SuiteRestart, SuiteRestarted, SuiteWatch

CAP = "suite"
MAX_WAITING = 64  # of those who wait for one device
ANSWER_S = 5.0
RESTARTED_S = 12.0  # the device waits for its warden, which may have to be started itself


class SuiteLink:
    """One a control connection. `last`: what the device has said last, if it was asked."""

    __slots__ = ("_looking", "_peer", "_restarts", "last", "leased_at")

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._looking: list[asyncio.Future[Suite]] = []
        self._restarts: dict[str, asyncio.Future[SuiteRestarted]] = {}
        self.last: Suite | None = None
        self.leased_at = -math.inf  # by state.now

    async def watch(self, for_s: float) -> None:
        """Have the device tell how its suite is, now and for so long whenever it changes. Raises LinkLost."""
        await self._peer.send("suite_watch", SuiteWatch(for_s))

    async def look(self, for_s: float) -> Suite:
        """How it is now; as `watch`, too. Who asks at the same time shares the answer. Raises LinkLost, TimeoutError,
        Refused."""
        if len(self._looking) >= MAX_WAITING:
            raise Refused("too many ask for the suite of this device")
        answer: asyncio.Future[Suite] = asyncio.get_running_loop().create_future()
        self._looking.append(answer)
        try:
            if len(self._looking) == 1:
                await self.watch(for_s)
            async with asyncio.timeout(ANSWER_S):
                return await answer
        finally:
            if answer in self._looking:
                self._looking.remove(answer)

    def came(self, suite: Suite) -> None:
        """The device has said how it is."""
        self.last = suite
        looking, self._looking = self._looking, []
        for answer in looking:
            if not answer.done():
                answer.set_result(suite)

    async def restart(self, asked: SuiteRestart, request_id: str) -> SuiteRestarted:
        """Have a process killed. Raises LinkLost, TimeoutError, Refused."""
        if len(self._restarts) >= MAX_WAITING:
            raise Refused("too many restarts of this device at a time")
        answer: asyncio.Future[SuiteRestarted] = asyncio.get_running_loop().create_future()
        self._restarts[request_id] = answer
        try:
            await self._peer.send("suite_restart", asked, request_id)
            async with asyncio.timeout(RESTARTED_S):
                return await answer
        finally:
            self._restarts.pop(request_id, None)

    def restarted(self, request_id: str | None, said: SuiteRestarted) -> bool:
        """Hand an answer on; False when nobody waits for it (any more)."""
        answer = self._restarts.get(request_id or "")
        if answer is None or answer.done():
            return False
        answer.set_result(said)
        return True

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        waiting: list[asyncio.Future[Any]] = [*self._looking, *self._restarts.values()]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(LinkLost(reason))
