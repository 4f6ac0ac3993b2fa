"""A POST: a whole text, and its sound as a file that is heard while it is made."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from aiohttp import web

from procs.speech.tts.formats import Output
from procs.speech.tts.track import Step
from procs.wire import moshi

SEND_S = 20.0  # for a caller that does not read


class Whole(msgspec.Struct):
    """What is asked for."""

    text: Annotated[str, msgspec.Meta(max_length=moshi.MAX_TEXT)]
    voice: Annotated[str, msgspec.Meta(max_length=200)] = ""
    format: str = "wav"


class File:
    """The answer to a POST. It begins with the first sound: until then there may be an error instead."""

    def __init__(self, request: web.Request, response: web.StreamResponse, output: Output) -> None:
        self.response, self._request, self._output = response, request, output

    async def write(self, steps: list[Step]) -> None:
        """Some of the sound."""
        begin = [] if self.response.prepared else self._output.begin()
        await self._send([*begin, *(piece for step in steps for piece in self._output.sound(step.pcm))])

    async def end(self) -> None:
        """No more comes."""
        await self._send(self._output.end())
        await self.response.write_eof()

    async def _send(self, pieces: list[bytes]) -> None:
        async with asyncio.timeout(SEND_S):
            if not self.response.prepared:
                await self.response.prepare(self._request)
            for piece in pieces:
                await self.response.write(piece)
