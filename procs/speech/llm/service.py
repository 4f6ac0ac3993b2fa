"""The chat over HTTP: POST /v1/chat/completions, GET /v1/models."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from aiohttp import web

from procs.errors import Refused
from procs.figures import Figures, Kind
from procs.speech import door
from procs.speech.llm import chat, respond, situation
from procs.speech.options import Speech

SEND_S = 20.0  # for a caller that does not read
FIGURES = {
    "llm_requests": Kind("counter", "answers that were asked for"),
    "llm_refused": Kind("counter", "requests that were none"),
    "llm_words": Kind("counter", "words answered"),
    "llm_duration": Kind("histogram", "seconds to find an answer", (0.0005, 0.001, 0.002, 0.005, 0.01, 0.1, 1)),
}


class Llm:
    """The service."""

    name = "llm"
    max_body = 512 * 1024  # a conversation of ten hours; more of it is looked at for seconds

    def __init__(self, settings: Speech) -> None:
        self.figures = Figures(FIGURES)

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [web.post("/v1/chat/completions", self._complete), web.get("/v1/models", self._models)]

    def modules(self) -> list[dict[str, object]]:
        """It has no slots: an answer takes a millisecond."""
        return []

    async def run(self, opened: Callable[[], Awaitable[None]]) -> None:
        """For ever."""
        await opened()
        await asyncio.get_running_loop().create_future()

    async def _models(self, _: web.Request) -> web.Response:
        return _json(chat.models(time.time()))

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.figures.add("llm_requests")
        began = time.monotonic()
        try:
            asked = chat.request(await door.body(request))
            messages = [(message.role, message.words) for message in asked.messages]
            talk = situation.of(messages, asked.metadata or {}, asked.seed, datetime.now().astimezone())
        except chat.NoModel as reason:
            self.figures.add("llm_refused")
            return _json(chat.error(str(reason), code="model_not_found"), 404)
        except web.HTTPRequestEntityTooLarge as reason:
            self.figures.add("llm_refused")
            return _json(chat.error(str(reason.text)), 413)
        except Refused as reason:
            self.figures.add("llm_refused")
            return _json(chat.error(str(reason)), 400)
        made = chat.answer(asked, respond.reply(talk), name=secrets.token_hex(12), now=time.time())
        self.figures.observe("llm_duration", time.monotonic() - began)
        self.figures.add("llm_words", len(made.tokens))
        if not asked.stream:
            return _json(chat.whole(made))
        return await _stream(
            request, made, with_usage=bool(asked.stream_options and asked.stream_options.include_usage)
        )


async def _stream(request: web.Request, made: chat.Answer, *, with_usage: bool) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
    )
    async with asyncio.timeout(SEND_S):
        await response.prepare(request)
        for event in chat.events(made, with_usage=with_usage):
            await response.write(event)
        await response.write_eof()
    return response


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
