"""A device's own origin: all of it is the device's, but for the one address by which a browser is let in."""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from procs.errors import Refused
from procs.hub.people import access
from procs.hub.people.accounts import VIEW_TTL_S, Session
from procs.hub.rest import refusal
from procs.hub.state import HUB, now
from procs.hub.tunnel import proxy_route
from procs.hub.tunnel.origins import COOKIE, ENTER, is_path, label_asked, label_of, see_other

_NOT_LET_IN = "To see this device's own pages, open it from the hub's page.\n"


@web.middleware
async def own_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have whatever is asked of a device's own origin answered here, so that nothing of the hub is served there."""
    label = label_asked(request)
    if not label:
        return await handler(request)
    target = proxy_route.target_of(request.raw_path)
    if target.partition("?")[0] == ENTER:
        return await _enter(request, label)
    return await _view(request, label, target)


async def _enter(request: web.Request, label: str) -> web.Response:
    """Change a ticket for the cookie. `to`: where to go then."""
    hub, to = request.app[HUB], request.query.get("to", "/")
    if request.method != hdrs.METH_GET:
        raise web.HTTPMethodNotAllowed(request.method, [hdrs.METH_GET])
    if not is_path(to):
        hub.counts.refuse("entry that leads elsewhere", address=access.address_of(request))
        raise refusal(web.HTTPBadRequest, "to: must be a path of this address")
    bearer = hub.entries.take(request.query.get("ticket", ""), now())
    if bearer is None or label_of(bearer.device_id) != label:
        hub.counts.refuse("entry without a good ticket", address=access.address_of(request))
        return _not_let_in()
    session = bearer.holder
    device, _ = await access.device_of(hub, session.user, session.role, bearer.device_id)
    try:
        token = await hub.accounts.open_view(session, device.key)
    except Refused:
        return _not_let_in()
    response = see_other(to)
    response.set_cookie(
        access.cookie_name(request, COOKIE),
        token,
        max_age=int(VIEW_TTL_S),
        httponly=True,
        samesite="Lax",
        secure=access.is_https(request),
    )
    return response


def _not_let_in() -> web.Response:
    return web.Response(text=_NOT_LET_IN, status=401, headers={"Cache-Control": "no-store"})


async def _view(request: web.Request, label: str, target: str) -> web.StreamResponse:
    hub, session = request.app[HUB], await _session(request)
    device = await hub.registry.of_key(session.device) if session and session.device is not None else None
    if session is None or device is None or label_of(device.device_id) != label:
        return _not_let_in()
    access.refuse_foreign_page(request)
    _, role = await access.device_of(hub, session.user, session.role, device.device_id)
    asker = access.Asker(session.user, session.login, True, role)
    return await proxy_route.let_in(request, asker, device.device_id, "", target)


async def _session(request: web.Request) -> Session | None:
    """Whose view it is. Another host may have set a cookie of the same name: of two none is believed."""
    given = access.cookies_of(request, access.cookie_name(request, COOKIE))
    return await access.session_of(request, given[0], "view") if len(given) == 1 else None
