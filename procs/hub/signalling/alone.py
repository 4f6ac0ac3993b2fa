"""Signalling and nothing else (python -m procs.hub --only signal): no store, no accounts, no page."""

from __future__ import annotations

from aiohttp import web

from procs.hub import metrics, rest
from procs.hub.people.access import is_local
from procs.hub.signalling import signal_ws
from procs.hub.state import HUB, State


def application(hub: State) -> web.Application:
    """Its three routes."""
    app = web.Application(middlewares=[rest.errors], client_max_size=rest.MAX_BODY)
    app[HUB] = hub
    app.on_response_prepare.append(rest.on_prepare)
    app.add_routes(
        [web.get("/ws/signal", signal_ws.socket), web.get("/health", rest.health), web.get("/metrics", counts)]
    )
    return app


async def counts(request: web.Request) -> web.Response:
    """GET /metrics: for this machine."""
    if not is_local(request):
        raise rest.refusal(web.HTTPForbidden, "Metrics are for this machine")
    hub = request.app[HUB]
    return web.Response(text=gauges(hub) + hub.counts.text(), headers={"Content-Type": metrics.TYPE})


def gauges(hub: State) -> str:
    """Who is there now."""
    rooms = hub.rooms
    return "".join((
        metrics.gauge("agents", "agents that are registered for signalling", len(rooms.agents)),
        metrics.gauge("agent_rooms", "rooms that they are in", rooms.count),
        metrics.gauges("agents_by_room", "of them, by how many are in their room", rooms.by_size),
    ))  # fmt: skip
