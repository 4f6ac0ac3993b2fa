"""Which streams go2rtc has: asked when a request names one, kept for a moment, anew for a name that is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from procs import log
from procs.errors import Refused, UpstreamFailed
from procs.proxy import go2rtc
from procs.proxy.policy import Upstream
from procs.proxy.upstream import Pool, Request
from procs.wire.mux1 import Code

KEPT_FOR_S = 2.0
ASK_AGAIN_S = 0.5  # at the earliest, however many unknown names are asked for
LIMIT_S = 10.0
MAX_BYTES = 8_000_000


class Streams:
    """The streams of one go2rtc."""

    def __init__(self, upstream: Upstream) -> None:
        self._pool = Pool(upstream)
        self._loop = asyncio.get_running_loop()
        self._names: frozenset[str] = frozenset()
        self._asked_at = -KEPT_FOR_S
        self._turn = asyncio.Lock()

    async def are_known(self, names: Iterable[str], deadline: float) -> bool:
        """Whether all of these are streams. Raises UpstreamFailed when go2rtc does not say by the deadline."""
        wanted = frozenset(names)
        if wanted <= self._names and self._loop.time() - self._asked_at < KEPT_FOR_S:
            return True
        async with self._turn:  # whoever waits here finds what the one before has learnt
            age_s = self._loop.time() - self._asked_at
            if age_s >= (KEPT_FOR_S if wanted <= self._names else ASK_AGAIN_S):
                await self._ask(min(deadline, self._loop.time() + LIMIT_S))
        return wanted <= self._names

    def close(self) -> None:
        """Close the connection to it."""
        self._pool.close()

    async def _ask(self, deadline: float) -> None:
        headers = [("Host", self._pool.upstream.authority)]
        request = Request("GET", "/api/streams", headers, None, is_idempotent=True, deadline=deadline)
        async with await self._pool.ask(request, LIMIT_S) as answer:
            body = await answer.all(MAX_BYTES, LIMIT_S)
            if answer.status != 200:
                raise UpstreamFailed(Code.UPSTREAM_ERROR, f"go2rtc says {answer.status} when asked for its streams")
        try:
            self._names = go2rtc.stream_names(body)
        except Refused as reason:
            log.warning("go2rtc's streams can't be told", reason=str(reason))
            raise UpstreamFailed(Code.UPSTREAM_ERROR, str(reason)) from None
        self._asked_at = self._loop.time()
