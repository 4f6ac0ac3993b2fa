"""Whether this machine's hub serves, and whether this machine's device is reached by it."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from pathlib import Path

from procs import bus, proc
from procs.errors import BusError
from procs.messages import Describe, LinkState
from scripts import listeners
from scripts.suite_settings import Plan

ASK_LIMIT_S = 2.0


def why_not_reached(root: Path, plan: Plan) -> str:
    """What is missing between this machine's device and whoever wants to reach it; "" if nothing is.

    A hub elsewhere that can't be reached is no fault of this machine's: it is only said (see `said`).
    """
    if "hub" in plan.suite.roles and (why := _why_no_hub(root, plan)):
        return why
    if "device" not in plan.suite.roles:
        return ""
    state = link_state(root)
    if state is None:
        return "ws_link: it does not answer"
    if not state.workers:
        return "proxy: none has told ws_link that it is there"
    if "hub" in plan.suite.roles and plan.wall.is_own_hub and state.state != "connected":
        return f"ws_link: {state.state}: {state.said or 'no connection yet'}"
    return ""


def said(root: Path, plan: Plan) -> str:
    """What is wrong with the connection to a hub elsewhere; "" if nothing is, or there is none to be."""
    if "device" not in plan.suite.roles:
        return ""
    state = link_state(root)
    if state is None or state.state == "connected":
        return ""
    return f"{state.hub}: {state.state} for {state.since_s:.0f} s: {state.said}"


def link_state(root: Path) -> LinkState | None:
    """What ws_link says of itself; None while it does not answer."""
    with bus.Requester(root / "run", bus.WS_LINK_STATE) as requester:
        try:
            body = requester.ask(Describe(), within_s=ASK_LIMIT_S).body
        except BusError:
            return None
    return body if isinstance(body, LinkState) else None


def _why_no_hub(root: Path, plan: Plan) -> str:
    hub = plan.wall.hub
    holder = listeners.listener(hub.listen, likely=proc.supervisord(root))
    if holder and holder not in proc.marked(root):
        return f"hub: {hub.listen} is taken{listeners.described(holder)}; choose another port"
    host = "127.0.0.1" if hub.listen.host == "0.0.0.0" else hub.listen.host
    asked = http.client.HTTPConnection(host, hub.listen.port, timeout=ASK_LIMIT_S)
    if hub.cert:
        # Only whether it answers is asked here, on this machine; its name need not be this address.
        context = ssl._create_unverified_context()
        asked = http.client.HTTPSConnection(host, hub.listen.port, timeout=ASK_LIMIT_S, context=context)
    try:
        with contextlib.closing(asked) as connection:
            connection.request("GET", "/health")
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"hub: it does not serve: {error}"
    return "" if status == 200 else f"hub: /health: status {status}"
