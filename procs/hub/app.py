"""The hub's routes, in one table."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from procs.hub import auth, data_link, device_ws, devices, metrics, pairing, proxy_route, rest, viewer_ws
from procs.hub.access import is_local, signed_in, token_of
from procs.hub.rest import whole
from procs.hub.state import HUB, State
from procs.hub.tunnel import Tunnel

ROUTES = [
    web.route(
        "*", "/api/devices/{id}/proxy{path:(/.*)?}", proxy_route.handle
    ),  # first: aiohttp tries one after the other
    web.get("/ws/device", device_ws.socket),
    web.get("/ws/data", data_link.socket),
    web.get("/ws/viewer", viewer_ws.socket),
    web.post("/api/auth/register", auth.post_register),
    web.post("/api/auth/login", auth.post_login),
    web.post("/api/auth/renew", auth.post_renew),
    web.post("/api/auth/logout", whole(auth.post_logout)),
    web.post("/api/auth/password", whole(auth.post_password)),
    web.get("/api/devices", devices.get_all),
    web.post("/api/devices/register", devices.post_register),
    web.post("/api/devices/pair", whole(pairing.post_pair)),
    web.post("/api/pairing/generate", pairing.post_generate),
    web.patch("/api/devices/{id}", whole(devices.patch)),
    web.delete("/api/devices/{id}", whole(devices.delete)),
    web.get("/api/devices/{id}/status", devices.get_status),
    web.post("/api/devices/{id}/open", devices.post_open),
]

IDLE_S = 30.0  # for a request to come whole with its headers, and between two
FRONT = """\
Planaria hub. Devices connect to /ws/device, and people reach them below /api/devices/ID/proxy/.
The account made at first start is `admin`; scripts/cli.py password shows its password once, or makes a new one.
"""


def runner(hub: State) -> web.AppRunner:
    """The hub as aiohttp runs it."""
    return web.AppRunner(
        _application(hub),
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,  # whoever leaves frees what the device does for them, at once
        auto_decompress=False,  # what goes on to a device goes as it came; nothing of the hub's own comes packed
        keepalive_timeout=IDLE_S,
        shutdown_timeout=0,
    )


def _application(hub: State) -> web.Application:
    app = web.Application(middlewares=[rest.errors], client_max_size=rest.MAX_BODY)
    app[HUB] = hub
    app[proxy_route.TUNNEL] = Tunnel(hub.presence, hub.counts.add)
    app.on_response_prepare.append(rest.on_prepare)
    app.add_routes(ROUTES)
    app.add_routes([web.get("/", front), web.get("/health", health), web.get("/metrics", get_metrics)])
    return app


async def front(_: web.Request) -> web.Response:
    """GET /."""
    return web.Response(text=FRONT)


async def health(_: web.Request) -> web.Response:
    """GET /health: this process answers."""
    return rest.answer({"status": "healthy", "timestamp": datetime.now(UTC).replace(tzinfo=None).isoformat()})


async def get_metrics(request: web.Request) -> web.Response:
    """GET /metrics: for this machine and for admins."""
    is_admin = bool(token_of(request)) and (await signed_in(request)).user.is_admin
    if not is_admin and not is_local(request):
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
    return "".join(gauges) + hub.counts.text()
