"""Who is let in. With a key, whoever shows it. Without one, which is for this machine alone: programs here, and pages
that come from here; any page of the web could else ask us through a browser on this machine."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from procs.errors import Refused, StoreDown
from procs.voice.options import Voice

OPEN = ("/", "/v1/health")  # as published: a health check has no key
_METHODS = "GET, POST, PUT, DELETE"


def guard(settings: Voice) -> Middleware:
    """Nobody else gets past."""

    @web.middleware
    async def of(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin", "")
        if settings.key:
            if request.path not in OPEN and not shows_key(request, settings):
                why = "wrong or no key: Authorization: Bearer has to show what PLANARIA_VOICE_KEY says"
                return web.json_response({"detail": why}, status=401, headers={"WWW-Authenticate": "Bearer"})
            return await handler(request)
        if not (is_near(f"//{request.host}") and (not origin or is_near(origin))):
            why = "without PLANARIA_VOICE_KEY only this machine is let in, and pages that come from it"
            return web.json_response({"detail": why}, status=403)
        answer = web.Response(status=204) if request.method == "OPTIONS" else await handler(request)
        if origin and not answer.prepared:  # a page of a web server beside us, as the published one is
            allowed = {"Origin": origin, "Methods": _METHODS, "Headers": "Content-Type, Authorization"}
            answer.headers.update({f"Access-Control-Allow-{name}": value for name, value in allowed.items()})
            answer.headers["Vary"] = "Origin"
        return answer

    return of


def shows_key(request: web.BaseRequest, settings: Voice) -> bool:
    """Whether a caller has shown the key."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    shown = bearer.strip() if scheme.lower() == "bearer" else ""
    if not shown and settings.compat:
        shown = request.query.get("auth_id", "")
    return hmac.compare_digest(shown.encode(errors="surrogateescape"), settings.key.encode())


def is_near(url: str) -> bool:
    """Whether the host of an address is this machine, by a name that no other can have: 127.example.org is one that
    anybody may have lead here."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@web.middleware
async def in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What goes wrong is said in JSON."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _said(404, f"nothing is at {request.path[:100]}")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = _said(error.status, error.text or error.reason)
        answer.headers.update({name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers})
        return answer
    except KeyError as name:
        return _said(404, f"Device {name} not found")
    except Refused as why:
        return _said(409 if request.method == "POST" else 422, str(why))
    except StoreDown as why:
        return _said(503, str(why))


def _said(status: int, why: str) -> web.Response:
    return web.json_response({"detail": why}, status=status)
