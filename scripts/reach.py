"""Whether this machine's hub serves, and whether this machine's device is reached by it."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import urllib.parse
from pathlib import Path
from typing import TypeVar

import msgspec

from procs import bus, proc, rpc
from procs.errors import BusError
from procs.messages.requests import AudioState, Describe, LinkState
from procs.messages.voice import VoiceState
from scripts import listeners
from scripts.plan import Plan

S = TypeVar("S", LinkState, AudioState, VoiceState)
ASK_LIMIT_S = 2.0


def why_not_reached(root: Path, plan: Plan) -> str:
    """What is missing between this machine's device and whoever wants to reach it; "" if nothing is.

    A hub elsewhere that can't be reached is no fault of this machine's: status only says so (see `missing`).
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
    if state.sessions is None:
        return "webrtc_peer: it has not told ws_link that it is there"
    if "hub" in plan.suite.roles and plan.wall.is_own_hub and state.state != "connected":
        return f"ws_link: {state.state}: {state.said or 'no connection yet'}"
    return ""


def missing(state: LinkState | None) -> list[str]:
    """What is wrong with the connection to the hub, here or elsewhere; [] if nothing is, or nobody tells."""
    if state is None or state.state == "connected":
        return []
    why = state.said or "no connection yet"
    return [f"hub {state.hub}: {state.state} for {state.since_s:.0f} s ({why}): nobody reaches this device through it"]


def missing_go2rtc(plan: Plan) -> list[str]:
    """What is wrong with a go2rtc elsewhere that this machine's device is for; [] if it answers, whatever it says."""
    if "device" not in plan.suite.roles or "streams" in plan.suite.roles:
        return []
    parts = urllib.parse.urlsplit(plan.wall.link.go2rtc_http)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=ASK_LIMIT_S)) as connection:
            connection.request("GET", f"{parts.path}/api")
            connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return [f"go2rtc {plan.wall.link.go2rtc_without_login}: {error}: there is nothing to be reached on this device"]
    return []


def hub_figures(plan: Plan) -> tuple[dict[str, int], str]:
    """Gauge -> value of this machine's hub: devices_online, data_links, viewers, ...; and why it tells none."""
    try:
        status, text = _ask_hub(plan, "/metrics")
    except (OSError, http.client.HTTPException) as error:
        return {}, f"it does not answer: {error}"
    if status == 403:  # it can't know that an address of the network is its own machine's
        host, port = plan.wall.hub.listen
        return {}, (
            f"it tells its figures by 127.0.0.1 and to admins alone, and listens on {host} only; with"
            f" PLANARIA_HUB=0.0.0.0:{port} it does here, too"
        )
    found = re.findall(r"^planaria_hub_(\w+) (\d+)$", text, re.M)
    return ({name: int(value) for name, value in found}, "") if status == 200 else ({}, f"/metrics: status {status}")


def link_state(root: Path) -> LinkState | None:
    """What ws_link says of itself; None while it does not answer."""
    return _described(root, bus.WS_LINK_STATE, LinkState)


def audio_state(root: Path) -> AudioState | None:
    """What audio_io says of itself; None while it does not answer."""
    return _described(root, bus.AUDIO_IO_STATE, AudioState)


def voice_state(root: Path) -> VoiceState | None:
    """What the voice backend says of itself and all of its devices; None while it does not answer."""
    state = _described(root, bus.VOICE_STATE, VoiceState)
    while state and state.more:
        rest = _described(root, bus.VOICE_STATE, VoiceState, state.devices[-1].name)
        state = msgspec.structs.replace(rest, devices=state.devices + rest.devices) if rest else None
    return state


def missing_voice(state: VoiceState | None) -> list[str]:
    """What is wrong with conversations, and the devices with which there is none, or that are not heard."""
    if state is None:
        return []
    wanted = [its for its in state.devices if its.state not in ("disabled", "elsewhere")]
    bad = [its for its in wanted if its.problem or its.state != "connected"]
    down = [f"voice: {name} is down: {why}" for name, why in state.services.items() if why]
    return [*state.problems, *down, *(f"voice device {its.name}: {its.problem or its.state}" for its in bad)]


def _described(root: Path, endpoint: str, kind: type[S], after: str = "") -> S | None:
    with rpc.Requester(root / "run", endpoint) as requester:
        try:
            body = requester.ask(Describe(after), within_s=ASK_LIMIT_S).body
        except BusError:
            return None
    return body if isinstance(body, kind) else None


def missing_sound(state: AudioState | None) -> list[str]:
    """What of a device's ears and mouth is not there, and what to do about it."""
    parts = (("microphone", state.microphone), ("speaker", state.speaker)) if state else ()
    return [f"{part}: {how}" for part, how in parts if how not in ("ok", "opening")]


def opens(state: AudioState) -> bool:
    """Whether a card has not been found or missed yet."""
    return "opening" in (state.microphone, state.speaker)


def _why_no_hub(root: Path, plan: Plan) -> str:
    hub = plan.wall.hub
    holder = listeners.listener(hub.listen, likely=proc.supervisord(root))
    if holder and holder not in {*proc.marked(root), proc.supervisord(root)}:  # which may be started by hand
        return f"hub: {hub.listen} is taken{listeners.described(holder)}; choose another port"
    try:
        status, _ = _ask_hub(plan, "/health")
    except (OSError, http.client.HTTPException) as error:
        return f"hub: it does not serve: {error}"
    return "" if status == 200 else f"hub: /health: status {status}"


def _ask_hub(plan: Plan, path: str) -> tuple[int, str]:
    """Status and body of a GET. Raises OSError, HTTPException."""
    hub = plan.wall.hub
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(hub.listen.host, hub.listen.host)
    asked = http.client.HTTPConnection(host, hub.listen.port, timeout=ASK_LIMIT_S)
    if hub.cert:
        # Only whether it answers is asked here, on this machine; its name need not be this address.
        context = ssl._create_unverified_context()
        asked = http.client.HTTPSConnection(host, hub.listen.port, timeout=ASK_LIMIT_S, context=context)
    with contextlib.closing(asked) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
