"""Answers: an OpenAI-compatible chat, by rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from procs.speech.figures import Figures
from procs.speech.options import Speech


class Llm:
    """The service."""

    name = "llm"

    def __init__(self, settings: Speech) -> None:
        self._settings = settings
        self.figures = Figures({})

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return []

    def modules(self) -> list[dict[str, object]]:
        """Its slots."""
        return []

    async def run(self, opened: Callable[[], Awaitable[None]]) -> None:
        """For ever."""
        await opened()
        await asyncio.get_running_loop().create_future()
