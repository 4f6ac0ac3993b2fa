"""Which room an agent comes into, by its token.

A hub for this machine alone lets everybody in: any token is a room, and none is the open room. As soon as others can
reach it, or tokens are set, a token must be one of those, or one of an account, whose room it then is.
"""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from procs.errors import Refused
from procs.hub.options import Hub
from procs.hub.people.access import MAX_TOKEN, address_of, refuse_foreign_page, token_of
from procs.hub.people.accounts import Session
from procs.hub.people.roles import OWNER, suffices
from procs.hub.rest import refusal
from procs.hub.signalling.rooms import OPEN
from procs.hub.state import HUB, now

WRONG = "invalid token"


def lets_everybody_in(settings: Hub) -> bool:
    """Whether an agent needs no token that we know."""
    return not settings.signaling_tokens and not settings.is_reached_by_others


def refuse_strange_page(request: web.Request) -> None:
    """Raise HTTPForbidden where another site's page would get in without a token, since a browser here opened it; be
    it under a name that leads here only since it was looked up again."""
    if not lets_everybody_in(request.app[HUB].settings):
        return
    refuse_foreign_page(request)
    host = urlsplit(f"//{request.host}").hostname or ""
    if hdrs.ORIGIN in request.headers and host not in ("localhost", "127.0.0.1", "::1"):
        request.app[HUB].counts.refuse("request of another site's page", path=request.path)
        raise refusal(web.HTTPForbidden, "This request comes from another site's page")


async def room_of(request: web.Request, given: str | None) -> tuple[str, Session | None]:
    """The room for a token, of the register frame or else of the request, and whose account it is. Raises Refused,
    StoreDown."""
    hub = request.app[HUB]
    token = given or token_of(request) or ""
    digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    if lets_everybody_in(hub.settings):
        return (f"token {digest}" if token else OPEN), None
    address = address_of(request)
    if hub.rates.signal_tokens.wait_s(address, now()):
        raise Refused("too many wrong tokens; try again later")
    if digest in hub.settings.signaling_digests:
        return f"token {digest}", None
    session = await hub.accounts.session(token) if 0 < len(token) <= MAX_TOKEN and not hub.settings.only else None
    if session and suffices(session.role, OWNER):
        return f"account {session.user.id}", session
    hub.rates.signal_tokens.take(address, now())
    raise Refused(WRONG)
