"""Who is let in, and what each of the three says of itself, as moshi-server does: /api/build_info (which the published
backend asks to see whether it is up), /api/modules_info, /metrics.

The server is aiohttp's and not websockets', for a path here takes both a WebSocket and a POST.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from procs import figures
from procs.settings import VERSION
from procs.speech.options import Speech

KEY = "kyutai-api-key"
BODY_S = 30.0
OPEN = ("/api/build_info", "/api/modules_info")  # as published: a health check has no key


class Service(Protocol):
    """One of the three."""

    name: str
    max_body: int  # bytes
    figures: figures.Figures

    def routes(self) -> list[web.RouteDef]:
        """What it answers, beside what they all do."""

    def modules(self) -> list[dict[str, object]]:
        """What /api/modules_info says: used_slots of total_slots."""

    async def run(self, opened: Callable[[], Awaitable[None]]) -> None:
        """Do its work, for ever; await `opened` as soon as callers can be let in. Raises what ends it, such as NotHere
        for a program that is not installed."""


def application(service: Service, settings: Speech) -> web.Application:
    """What answers callers."""

    async def build_info(_: web.Request) -> web.Response:
        return web.json_response({"name": f"planaria speech_{service.name}", "version": VERSION})

    async def modules_info(_: web.Request) -> web.Response:
        return web.json_response(service.modules())

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=service.figures.text(), headers={"Content-Type": figures.TYPE})

    app = web.Application(middlewares=[_guard(settings), _in_words], client_max_size=service.max_body)
    app.add_routes(
        [
            web.get("/api/build_info", build_info),
            web.get("/api/modules_info", modules_info),
            web.get("/metrics", metrics),
            *service.routes(),
        ]
    )
    return app


async def body(request: web.Request) -> bytes:
    """All of it. Raises HTTPRequestEntityTooLarge, and HTTPRequestTimeout for who sends it slowly."""
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY_S:g} s") from None


def _guard(settings: Speech) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN and not is_let_in(request, settings):
            return web.json_response({"error": {"message": _why_not(settings), "type": "unauthorized"}}, status=401)
        return await handler(request)

    return guard


def _why_not(settings: Speech) -> str:
    if settings.key:
        return f"wrong or no key: {KEY}, or Authorization: Bearer, has to show what PLANARIA_SPEECH_KEY says"
    return "no page in a browser is let in without a key: set PLANARIA_SPEECH_KEY, and let it show that"


@web.middleware
async def _in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is asked for wrongly is answered in JSON, as all else is, with what there is instead."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        there = sorted({route.resource.canonical for route in request.app.router.routes() if route.resource})
        return _wrong(404, f"nothing is at {request.path[:100]}; there are {', '.join(there)}")
    except web.HTTPBadRequest as error:
        why = " ".join((error.text or "").split())
        return _wrong(
            400, why if "Upgrade" in request.headers else f"{request.path} takes a WebSocket, or a POST: {why}"
        )
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = _wrong(405, f"{request.path} takes {allowed}, not {request.method[:20]}")
        answer.headers["Allow"] = allowed
        return answer


def _wrong(status: int, why: str) -> web.Response:
    fields = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": fields}, status=status)


def is_let_in(request: web.BaseRequest, settings: Speech) -> bool:
    """Whether a caller may come in. Without a key everybody on this machine may, but for pages in their browsers: any
    page of the web could connect to us there."""
    if not settings.key:
        return "Origin" not in request.headers
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    shown = request.headers.get(KEY) or (bearer.strip() if scheme.lower() == "bearer" else "")
    if not shown and settings.compat:
        shown = request.query.get("auth_id", "")
    return hmac.compare_digest(shown.encode(errors="surrogateescape"), settings.key.encode())
