"""Hears: sound in, words and pauses out. The leader: callers' connections, and a child for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from aiohttp import web

from procs.speech.figures import Figures
from procs.speech.options import Speech


class Brood(Protocol):
    """What brood.hatch gives a leader."""

    def fork(self, child: str, spec: bytes) -> None:
        """Have a child born."""

    def kill(self, child: str) -> None:
        """Have one ended."""

    def watch(
        self, ready: Callable[[], None], born: Callable[[str, int], None], ended: Callable[[str, int], None]
    ) -> Coroutine[Any, Any, Any]:
        """Tell of all of them, for ever."""


class Stt:
    """The service."""

    name = "stt"

    def __init__(self, settings: Speech, brood: Brood) -> None:
        self._settings, self._brood = settings, brood
        self.figures = Figures({})

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return []

    def modules(self) -> list[dict[str, object]]:
        """Its slots."""
        return []

    async def run(self, opened: Callable[[], Awaitable[None]]) -> None:
        """For ever. Raises ZygoteLost."""
        ready = asyncio.Event()
        watching = asyncio.ensure_future(self._brood.watch(ready.set, self._born, self._ended))
        await asyncio.wait([watching, asyncio.ensure_future(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
        if not watching.done():
            await opened()
        await watching

    def _born(self, child: str, pid: int) -> None:
        pass

    def _ended(self, child: str, status: int) -> None:
        pass
