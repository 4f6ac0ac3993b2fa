"""Signalling between viewers and devices, handed on as it comes: by session, and only to whom the session belongs."""

from __future__ import annotations

import contextlib

from procs.errors import LinkLost, Refused
from procs.hub.devices.presence import Control
from procs.hub.state import State, now
from procs.hub.viewers.peer import Viewer
from procs.hub.viewers.watches import Watch
from procs.wire import envelope
from procs.wire.envelope import Envelope

_Signal = envelope.SignalOffer | envelope.SignalAnswer | envelope.SignalIce
OFFLINE = "Device is offline"


def ice_servers(hub: State) -> list[envelope.IceServer]:
    """What viewer and device may use to find each other."""
    return [envelope.IceServer(urls=url) for url in hub.settings.stun_urls]


async def request(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """watch_request of a viewer: begin a session."""
    device_id = envelope.parse(frame, envelope.ViewerWatchRequest).device_id
    user = viewer.session.user
    device = await hub.registry.find(device_id)
    control = hub.presence.control(device_id)
    if device is None or await hub.registry.role(device, user.id) is None:
        viewer.peer.refuse("device of somebody else, or of nobody", user=user.username)
        return await _say(viewer, "Device not found", frame)
    if control is None:
        return await _say(viewer, OFFLINE, frame)
    watch = hub.watches.begin(viewer, user.id, device_id, control.instance, now())
    if watch is None:
        viewer.peer.refuse("too many watch sessions", user=user.username)
        return await _say(viewer, "Too many watch sessions", frame)
    hub.counts.add("watches")
    servers = ice_servers(hub)
    try:
        await control.send("watch_request", envelope.WatchRequest(watch.session_id, str(user.id), servers))
    except LinkLost:
        hub.watches.end(watch)
        return await _say(viewer, OFFLINE, frame)
    ready = envelope.WatchReady(watch.session_id, "p2p", servers)
    await viewer.peer.send("watch_ready", ready, frame.request_id)


async def from_viewer(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """signal_offer, signal_ice: on to the device. Raises Refused."""
    kind: type[_Signal] = envelope.SignalOffer if frame.type == "signal_offer" else envelope.SignalIce
    signal = envelope.parse(frame, kind)
    watch = hub.watches.by_viewer(viewer, signal.session_id)
    if watch is None:
        raise Refused("no such session")
    control = hub.presence.control(watch.device_id)
    try:
        if control is None:
            raise LinkLost(OFFLINE)
        await control.send(frame.type, signal)
    except LinkLost:
        await _say(viewer, OFFLINE, frame)


async def from_device(hub: State, control: Control, frame: Envelope) -> None:
    """signal_answer, signal_ice: on to the viewer. Raises Refused."""
    kind: type[_Signal] = envelope.SignalAnswer if frame.type == "signal_answer" else envelope.SignalIce
    signal = envelope.parse(frame, kind)
    watch = hub.watches.by_device(control.device_id, signal.session_id)
    if watch is None:
        raise Refused("no such session")
    watch.is_answered = watch.is_answered or frame.type == "signal_answer"
    with contextlib.suppress(LinkLost):  # its own end will say that
        await watch.viewer.peer.send(frame.type, signal)


async def ended_by_viewer(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """end_watch. Raises Refused."""
    watch = hub.watches.by_viewer(viewer, envelope.parse(frame, envelope.EndWatch).session_id)
    if watch is None:
        raise Refused("no such session")
    await end(hub, watch, "user_ended", viewer=False)


async def ended_by_device(hub: State, control: Control, frame: Envelope) -> None:
    """watch_ended of a device: it can't go on. Raises Refused."""
    said = envelope.parse(frame, envelope.WatchEnded)
    watch = hub.watches.by_device(control.device_id, said.session_id)
    if watch is None:
        raise Refused("no such session")
    await end(hub, watch, said.reason, device=False)


async def end(hub: State, watch: Watch[Viewer], reason: str, *, viewer: bool = True, device: bool = True) -> None:
    """End a session and tell those who do not know."""
    if not hub.watches.end(watch):
        return
    said = envelope.WatchEnded(watch.session_id, reason)
    control = hub.presence.control(watch.device_id)
    if device and control and control.instance == watch.instance:
        with contextlib.suppress(LinkLost):
            await control.send("watch_ended", said)
    if viewer:
        with contextlib.suppress(LinkLost):
            await watch.viewer.peer.send("watch_ended", said)


async def end_all(hub: State, over: list[Watch[Viewer]], reason: str) -> None:
    """End several."""
    for watch in over:
        await end(hub, watch, reason)


async def _say(viewer: Viewer, message: str, frame: Envelope) -> None:
    await viewer.peer.send("error", envelope.Error(message), frame.request_id)
