"""The hub's routes, in one table (ROUTES, below)."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from procs.hub import answers, metrics, openapi, pages, rest, voice
from procs.hub.devices import device_ws, devices, pairing, shares, suite
from procs.hub.openapi import ANYTHING, PROXIED, WEBSOCKET, Route
from procs.hub.people import api_tokens, auth, sessions, users
from procs.hub.people.access import is_local, who_asks
from procs.hub.rest import whole
from procs.hub.signalling import alone, signal_ws
from procs.hub.state import HUB, State
from procs.hub.tunnel import data_link, origins, proxy_route, thumbnails, view_route
from procs.hub.tunnel.tunnel import Tunnel
from procs.hub.viewers import viewer_ws, whep
from procs.wire.frames.device import PairingCode
from procs.wire.frames.suite import Suite, SuiteRestart

IDLE_S = 30.0  # for a request to come whole with its headers, and between two


def runner(hub: State, *more: web.RouteDef) -> web.AppRunner:
    """The hub as aiohttp runs it; `more` routes come before its own."""
    return web.AppRunner(
        alone.application(hub) if hub.settings.only else _application(hub, more),
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,  # whoever leaves frees what the device does for them, at once
        auto_decompress=False,  # what goes on to a device goes as it came; nothing of the hub's own comes packed
        keepalive_timeout=IDLE_S,
        shutdown_timeout=0,
    )


def _application(hub: State, more: tuple[web.RouteDef, ...]) -> web.Application:
    app = web.Application(middlewares=[rest.errors, view_route.own_origins], client_max_size=rest.MAX_BODY)
    app[HUB] = hub
    app[proxy_route.TUNNEL] = tunnel = Tunnel(hub.presence, hub.counts.add)
    app[thumbnails.PICTURES] = thumbnails.pictures(hub.presence, tunnel, hub.counts)
    app.on_response_prepare.append(rest.on_prepare)
    app[openapi.DOCUMENT] = msgspec.json.encode(openapi.document(ROUTES))
    app.add_routes([*more, *(route.served for route in ROUTES)])
    return app


async def get_metrics(request: web.Request) -> web.Response:
    """GET /metrics: for this machine and for admins."""
    session = await who_asks(request)
    if not (session and session.user.is_admin) and not is_local(request):
        raise rest.refusal(web.HTTPForbidden, "Metrics are for this machine, or with an admin's token")
    return web.Response(text=_metrics(request.app[HUB]), headers={"Content-Type": metrics.TYPE})


def _metrics(hub: State) -> str:
    gauges = [
        metrics.gauge("devices_online", "devices with a control connection", len(hub.presence.controls())),
        metrics.gauge("data_links", "data connections of devices", hub.presence.link_count),
        metrics.gauge("viewers", "viewers with a connection", len(hub.viewers)),
        metrics.gauge("watch_sessions", "watch sessions", len(hub.watches)),
        metrics.gauge("store_waiting", "calls of the store that wait or run", hub.store.waiting),
    ]
    return "".join(gauges) + alone.gauges(hub) + hub.counts.text()


# A line each: call, handler, who may, the struct of its body, the type of its answer; then, where it has them,
# the struct of its query and the statuses that don't follow from the rest. What it does the docstring of the handler
# says. The OpenAPI document is made of it all.
ROUTES = [
    # First: aiohttp tries one after the other.
    Route("* /api/devices/{id}/proxy{path:(?:/.*)?}", proxy_route.handle, "viewer", None, ANYTHING, also=PROXIED),
    Route("GET /ws/device", device_ws.socket, "anybody", None, WEBSOCKET),
    Route("GET /ws/data", data_link.socket, "anybody", None, WEBSOCKET),
    Route("GET /ws/viewer", viewer_ws.socket, "anybody", None, WEBSOCKET),
    Route("GET /ws/signal", signal_ws.socket, "anybody", None, WEBSOCKET),
    Route(
        "POST /api/auth/register",
        auth.post_register,
        "anybody",
        auth.Registration,
        answers.Granted,
        also=(401, 403, 429),
    ),
    Route("POST /api/auth/login", auth.post_login, "anybody", sessions.Login, answers.Granted, also=(401, 429)),
    Route("POST /api/auth/renew", auth.post_renew, "user", None, answers.Granted),
    Route("POST /api/auth/logout", whole(auth.post_logout), "user", None, answers.Said),
    Route(
        "POST /api/auth/password",
        whole(auth.post_password),
        "user",
        auth.PasswordChange,
        (answers.Granted, sessions.LoggedIn),
        also=(429,),
    ),
    Route(
        "POST /api/session", whole(sessions.post), "anybody", sessions.Login, sessions.LoggedIn, also=(401, 403, 429)
    ),
    Route("GET /api/session", sessions.get, "user", None, sessions.SessionShown),
    Route("DELETE /api/session", whole(sessions.delete), "user", None, answers.Said),
    Route("GET /api/users", users.get_all, "admin", None, list[users.Shown]),
    Route("POST /api/users", users.post, "admin", users.Wanted, users.Shown, also=(409,)),
    Route("PATCH /api/users/{id:[0-9]{1,9}}", whole(users.patch), "admin", users.Change, users.Shown, also=(409,)),
    Route("DELETE /api/users/{id:[0-9]{1,9}}", whole(users.remove), "admin", None, answers.Said, also=(409,)),
    Route("GET /api/tokens", api_tokens.get_all, "user", None, list[api_tokens.Shown]),
    Route("POST /api/tokens", api_tokens.post, "user", api_tokens.Wanted, api_tokens.Made, also=(409,)),
    Route("DELETE /api/tokens/{id:[0-9]{1,9}}", whole(api_tokens.delete), "user", None, answers.Said),
    Route("GET /api/devices", devices.get_all, "user", None, list[devices.Shown]),
    Route(
        "POST /api/devices/register",
        devices.post_register,
        "anybody",
        devices.Registration,
        answers.Registered,
        also=(429,),
    ),
    Route("POST /api/devices/pair", whole(pairing.post_pair), "user", pairing.Pair, answers.Paired, also=(404, 429)),
    Route(
        "POST /api/pairing/generate",
        pairing.post_generate,
        "anybody",
        None,
        PairingCode,
        pairing.Generate,
        (401, 403, 404, 429),
    ),
    Route("GET /api/devices/{id}", devices.get_one, "viewer", None, devices.Shown),
    Route("PATCH /api/devices/{id}", whole(devices.patch), "owner", devices.Change, devices.Shown),
    Route("DELETE /api/devices/{id}", whole(devices.delete), "owner", None, answers.Said),
    Route("GET /api/devices/{id}/status", devices.get_status, "viewer", None, answers.Status),
    Route(
        "GET /api/devices/{id}/events", devices.get_events, "viewer", None, devices.EventsShown, devices.EventsWanted
    ),
    Route("GET /api/devices/{id}/shares", shares.get_all, "owner", None, list[shares.Share]),
    Route(
        "PUT /api/devices/{id}/shares/{username}",
        whole(shares.put),
        "owner",
        shares.Wanted,
        shares.Share,
        also=(409, 429),
    ),
    Route("DELETE /api/devices/{id}/shares/{username}", whole(shares.remove), "owner", None, answers.Said),
    Route("POST /api/devices/{id}/open", origins.post_open, "viewer", origins.Opening, answers.Opened, also=(409,)),
    Route(
        "GET /api/devices/{id}/streams/{name}/thumbnail",
        thumbnails.get,
        "viewer",
        None,
        thumbnails.JPEG,
        also=(304, 502, 504),
    ),
    Route(
        "POST /api/devices/{id}/whep",
        whep.post,
        "viewer",
        None,
        whep.SDP,
        whep.Wanted,
        (502, 504),
        takes=whep.SDP,
        ok=201,
        is_shared=True,
    ),
    Route("OPTIONS /api/devices/{id}/whep", whep.options, "anybody", ok=204, is_shared=True),
    Route(
        "PATCH /api/devices/{id}/whep/{session}",
        whep.patch,
        "viewer",
        also=(422,),
        takes=whep.FRAGMENT,
        ok=204,
        is_shared=True,
    ),
    Route("DELETE /api/devices/{id}/whep/{session}", whep.delete, "viewer", None, answers.Said, is_shared=True),
    Route("OPTIONS /api/devices/{id}/whep/{session}", whep.options_of_session, "anybody", ok=204, is_shared=True),
    Route("GET /api/devices/{id}/suite", suite.get_of_device, "viewer", None, Suite, also=(409,)),
    Route("POST /api/devices/{id}/suite/restart", suite.post_of_device, "owner", SuiteRestart, suite.Done, also=(409,)),
    Route("GET /api/suite", suite.get_own, "admin", None, Suite, also=(409,)),
    Route("POST /api/suite/restart", suite.post_own, "admin", SuiteRestart, suite.Done, also=(409,)),
    Route("GET /api/voice", voice.get_state, "admin", None, voice.Shown, also=(404,)),
    Route("GET /api/voice/{name}/lines", voice.get_lines, "admin", None, voice.Told, voice.Wanted, also=(409,)),
    Route("POST /api/voice/{name}/say", whole(voice.post_say), "admin", voice.Say, answers.Said, also=(409,)),
    Route(
        "POST /api/voice/{name}/{what:(?:mute|unmute|reconnect|enable|disable|forget)}",
        whole(voice.post_what),
        "admin",
        None,
        answers.Said,
        also=(409,),
    ),
    Route("GET /api/openapi.json", openapi.get_document, "anybody", None, dict[str, Any]),
    Route("GET /", pages.front, "anybody", None, "text/html", also=(304,)),
    Route("GET /page/{name}", pages.get_file, "anybody", None, ANYTHING, also=(304,)),
    Route("GET /health", rest.health, "anybody", None, answers.Health),
    Route("GET /metrics", get_metrics, "machine", None, "text/plain"),
]
