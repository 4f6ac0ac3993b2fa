"""REST: JSON in and out, errors as {"detail"}, and what stands on every answer."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from procs import log
from procs.errors import StoreDown
from procs.hub.state import HUB

T = TypeVar("T")
MAX_BODY = 64 * 1024
BODY_S = 10.0  # for a whole body
_STARTED = web.RequestKey("started", bool)
SANDBOXED = web.RequestKey("sandboxed", bool)  # what a device has said is answered at the hub's own origin
_ANY_PAGE = web.RequestKey("any page", bool)
# What people call something: one line, and not blank.
NAME = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*\Z"
_JSON = "application/json"
# Also of a device's answer, whatever it says of them: who asks is known by a cookie, and no other site may show or read
# what it is answered.
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Who asks is known by a token that the page has been given, and by nothing that a browser sends by itself: with * it
# hands no answer to a page that had it send cookies, and those of other sites are refused anyway (access.py).
_FOR_ANY_PAGE = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Location, Link, ETag, Accept-Patch, Retry-After, WWW-Authenticate",
}
# Nothing of it runs, loads, asks or is shown inside anything, and it counts as of no origin: it is there to be fetched.
_SANDBOX = {
    "Content-Security-Policy": "sandbox; default-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}
_ELSE = {
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def answer(data: object, status: int = 200) -> web.Response:
    """JSON that nobody may keep: it is somebody's own."""
    return web.Response(
        body=msgspec.json.encode(data), status=status, content_type=_JSON, headers={"Cache-Control": "no-store"}
    )


def refusal(kind: type[web.HTTPException], detail: str, **headers: str) -> web.HTTPException:
    """An answer that says no, to be raised. Headers: with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return kind(text=_detail(detail), content_type=_JSON, headers=named)


def too_many(wait_s: float, detail: str = "Too many attempts; try again later") -> web.HTTPException:
    """429, with when to come again."""
    return refusal(web.HTTPTooManyRequests, detail, Retry_After=str(max(1, math.ceil(wait_s))))


def busy(detail: str, wait_s: float = 1.0) -> web.HTTPException:
    """503, with when to come again."""
    return refusal(web.HTTPServiceUnavailable, detail, Retry_After=str(max(1, math.ceil(wait_s))))


def _detail(text: str) -> str:
    return msgspec.json.encode({"detail": text}).decode()


async def health(_: web.Request) -> web.Response:
    """GET /health: this process answers."""
    return answer({"status": "healthy", "timestamp": datetime.now(UTC).replace(tzinfo=None).isoformat()})


async def body(request: web.Request, kind: type[T]) -> T:
    """The body as JSON of this kind. Raises HTTPException: 400 names the field, 408, 413."""
    data = await _whole_body(request)
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise refusal(web.HTTPBadRequest, str(error)[:300]) from None


async def _whole_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise refusal(web.HTTPRequestTimeout, f"The body did not come within {BODY_S:g} s") from None


def after_body(handler: Handler) -> Handler:
    """A handler that begins when the body has come: who sends it slowly is asked who they are at its end, and not by
    what they were allowed when they began."""

    async def run(request: web.Request) -> web.StreamResponse:
        await _whole_body(request)  # aiohttp keeps it
        return await handler(request)

    return run


def for_any_page(handler: Handler) -> Handler:
    """A handler whose answers, whatever they are, other sites' pages may read (CORS)."""

    async def run(request: web.Request) -> web.StreamResponse:
        request[_ANY_PAGE] = True
        return await handler(request)

    return run


def query(request: web.Request, kind: type[T]) -> T:
    """The query as a struct of this kind. Raises HTTPBadRequest."""
    try:
        return msgspec.convert(dict(request.query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise refusal(web.HTTPBadRequest, str(error)[:300]) from None


def whole(handler: Callable[[web.Request], Coroutine[Any, Any, web.Response]]) -> Handler:
    """A handler that goes on when whoever asked has left: a change is made as a whole, with all that follows of it."""

    @functools.wraps(handler)
    async def run(request: web.Request) -> web.StreamResponse:
        doing = asyncio.get_running_loop().create_task(handler(request))
        request.app[HUB].keep(doing)
        doing.add_done_callback(_has_ended)
        return await asyncio.shield(doing)

    return run


def _has_ended(doing: asyncio.Task[web.Response]) -> None:
    """Nobody may be there to hear of its error, which is no news to asyncio."""
    if not doing.cancelled():
        doing.exception()


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong in a handler is one JSON object; nothing of the inside is told."""
    counts = request.app[HUB].counts
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = _said(error)
    except StoreDown as error:
        log.warning(str(error), path=request.path)
        response = _said(busy("The store does not answer; try again"))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:  # at the border of one request: the other connections live on
        log.error(f"unforeseen {type(error).__name__}: {error}", trace=True, path=request.path)
        response = _said(refusal(web.HTTPInternalServerError, "Internal error"))
    if request.get(_STARTED) and not response.prepared and request.transport:
        request.transport.abort()  # the answer had begun: what is left to say is that it is not whole
    counts.add("requests", f"{response.status // 100}xx")
    return response


def _said(error: web.HTTPException) -> web.Response:
    """The error as an answer; those of aiohttp itself are made like ours."""
    text = error.text if error.content_type == _JSON else _detail(error.reason)
    dropped = ("content-type", "content-length")
    kept = {name: value for name, value in error.headers.items() if name.lower() not in dropped}
    return web.Response(text=text, status=error.status, content_type=_JSON, headers=kept)


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers of safety on an answer."""
    request[_STARTED] = True
    if response.status == 101:
        return
    if response.headers.get("Server", "").startswith("Python/"):  # aiohttp's, with its version
        response.headers["Server"] = "planaria"
    response.headers.update(_ALWAYS)
    if request.get(SANDBOXED):
        response.headers.update(_SANDBOX)
    if request.get(_ANY_PAGE):
        response.headers.update(_FOR_ANY_PAGE)
    for name, value in _ELSE.items():
        response.headers.setdefault(name, value)
    if request.secure:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
