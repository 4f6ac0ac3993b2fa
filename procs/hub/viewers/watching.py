"""Signalling between viewers and devices, handed on as it comes: by session, and only to whom the session belongs.

Who is away for a moment misses nothing: what is said to them meanwhile is held, and said when they are back.
"""

from __future__ import annotations

import contextlib
import functools
import time

import msgspec

from procs import log
from procs.errors import LinkLost, Refused
from procs.hub.devices.presence import Control
from procs.hub.people.roles import OWNER, Role, lesser
from procs.hub.state import State, now
from procs.hub.tunnel.views import View
from procs.hub.viewers import ice, sdp
from procs.hub.viewers.peer import Viewer, Watcher
from procs.hub.viewers.watches import RESUME, VIEWER, Kind, Watch
from procs.wire import envelope
from procs.wire.envelope import Envelope
from procs.wire.frames.connection import Error
from procs.wire.frames.watch import (
    EndWatch,
    SignalAnswer,
    SignalIce,
    SignalOffer,
    ViewerWatchRequest,
    WatchEnded,
    WatchReady,
    WatchRequest,
    WatchResume,
)
from procs.wire.webrtc import IceServer

_Signal = SignalOffer | SignalAnswer | SignalIce
OFFLINE = "Device is offline"
NOT_FOUND = "Device not found"
TOO_MANY = "Too many watch sessions"
NO_SESSION = "no such session"
TAKEN_AWAY = "what let you watch is over"


class NoWatch(Exception):
    """No session begins; the text says why."""


def ice_servers(hub: State, user_id: int) -> list[IceServer]:
    """What viewer and device may use to find each other."""
    chosen = hub.settings
    return ice.servers(chosen.stun_urls, chosen.turn_urls, chosen.turn_secret, f"viewer_{user_id}", time.time())


async def begin(hub: State, watch: Watch[Watcher], control: Control) -> None:
    """A session begins, and its device is told. Raises NoWatch."""
    if spare := hub.watches.spare(watch):
        await end(hub, spare, "viewer_disconnected")
    if not hub.watches.begin(watch):
        raise NoWatch(TOO_MANY)
    hub.counts.add("watches")
    _let_in(hub, watch)
    try:
        await _ask_device(hub, watch, control)
    except LinkLost:
        await end(hub, watch, "device_disconnected", viewer=False)
        raise NoWatch(OFFLINE) from None
    hub.kept_watches.begin(watch, control.key)
    hub.spawn(hub.kept_watches.write())


def _let_in(hub: State, watch: Watch[Watcher]) -> None:
    """It ends with what lets its viewer in."""
    if watch.view:
        hub.views.end(watch.view)
    watch.view = View(watch.user_id, watch.login, watch.device_id, functools.partial(_cut, hub, watch))
    hub.views.begin(watch.view)


def _cut(hub: State, watch: Watch[Watcher]) -> None:
    hub.spawn(take_away(hub, [watch]))


async def _ask_device(hub: State, watch: Watch[Watcher], control: Control) -> None:
    servers = ice_servers(hub, watch.user_id)
    asked = WatchRequest(watch.session_id, str(watch.user_id), servers, watch.stream)
    await control.send("watch_request", asked)


async def request(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """watch_request of a viewer: begin a session."""
    wanted = envelope.parse(frame, ViewerWatchRequest)
    user, control = viewer.session.user, hub.presence.control(wanted.device_id)
    role = await _role(hub, user.id, wanted.device_id)
    if role is None:
        viewer.peer.refuse("device of somebody else, or of nobody", user=user.username)
        return await _say(viewer, NOT_FOUND, frame)
    if control is None:
        return await _say(viewer, OFFLINE, frame)
    kind: Kind = RESUME if viewer.can_resume else VIEWER
    watch: Watch[Watcher] = Watch(
        viewer, user.id, wanted.device_id, control.instance, now(), kind, wanted.stream, viewer.session.login
    )
    watch.may_talk = lesser(role, viewer.session.role) == OWNER
    try:
        await begin(hub, watch, control)
    except NoWatch as error:
        if str(error) == TOO_MANY:
            viewer.peer.refuse("too many watch sessions", user=user.username)
        return await _say(viewer, str(error), frame)
    await _ready(hub, viewer, watch, frame)


async def _role(hub: State, user_id: int, device_id: str) -> Role | None:
    """What a user may do with a device; None where they may not even know of it."""
    device = await hub.registry.find(device_id)
    return await hub.registry.role(device, user_id) if device else None


async def _ready(hub: State, viewer: Viewer, watch: Watch[Watcher], frame: Envelope) -> None:
    ready = WatchReady(watch.session_id, "p2p", ice_servers(hub, watch.user_id))
    await viewer.send("watch_ready", ready, frame.request_id)


async def resume(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """watch_resume of a viewer: go on with a session of an earlier connection."""
    session_id = envelope.parse(frame, WatchResume).session_id
    user = viewer.session.user
    watch = hub.watches.by_user(user.id, session_id, RESUME) if viewer.can_resume else None
    if watch is None or await _role(hub, user.id, watch.device_id) is None:
        return await _say(viewer, NO_SESSION, frame)
    if not hub.watches.resume(watch, viewer):
        return await _say(viewer, TOO_MANY, frame)
    watch.login = viewer.session.login
    _let_in(hub, watch)
    hub.counts.add("watches_resumed")
    await _ready(hub, viewer, watch, frame)
    for kind, signal in watch.to_viewer:
        await viewer.send(kind, signal)


async def from_viewer(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """signal_offer, signal_ice: on to the device. Raises Refused."""
    kind: type[_Signal] = SignalOffer if frame.type == "signal_offer" else SignalIce
    signal = envelope.parse(frame, kind)
    watch = hub.watches.by_viewer(viewer, signal.session_id)
    if watch is None:
        raise Refused(NO_SESSION)
    if not await to_device(hub, watch, frame.type, signal):
        await _say(viewer, OFFLINE, frame)


async def to_device(hub: State, watch: Watch[Watcher], kind: str, signal: _Signal) -> bool:
    """Hand on what a viewer says; False where the device is away, and won't be back in this session. Raises Refused for
    an offer that is too large."""
    if isinstance(signal, SignalOffer):
        if not watch.may_talk:
            heard = msgspec.structs.replace(signal.sdp, sdp=sdp.silenced(signal.sdp.sdp))
            signal = SignalOffer(signal.session_id, heard)
        envelope.encode(kind, signal)  # what no frame can carry must not be held, to be said to the device again
        watch.said.clear()
        watch.to_viewer.clear()
        watch.to_device.add(kind, signal)
    elif watch.to_device or watch.device_until:
        watch.to_device.add(kind, signal)
    control = hub.presence.control(watch.device_id)
    try:
        if control is None:
            raise LinkLost(OFFLINE)
        await control.send(kind, signal)
    except LinkLost:
        return bool(watch.instance)
    return True


async def device_is_back(hub: State, control: Control) -> None:
    """Say to a device again what was said to it on a connection that broke, unless it was answered. Raises LinkLost."""
    for watch in hub.watches.of_device(control.device_id):
        if not control.instance or watch.instance != control.instance:
            continue
        if not watch.is_answered:
            await _ask_device(hub, watch, control)
        for kind, signal in watch.to_device:
            await control.send(kind, signal)
        if watch.is_answered and not watch.to_device.has_description:
            watch.to_device.clear()


async def from_device(hub: State, control: Control, frame: Envelope) -> None:
    """signal_answer, signal_ice: on to the viewer. Raises Refused."""
    kind: type[_Signal] = SignalAnswer if frame.type == "signal_answer" else SignalIce
    signal = envelope.parse(frame, kind)
    watch = hub.watches.by_device(control.device_id, signal.session_id)
    if watch is None:
        raise Refused(NO_SESSION)
    if watch.is_repeated(bytes(frame.payload)):
        hub.counts.add("signals_repeated")
        return
    watch.settled_at = now()
    watch.to_viewer.add(frame.type, signal)
    if isinstance(signal, SignalAnswer):
        watch.is_answered = True
        watch.to_device.clear()
    if watch.viewer is not None:
        with contextlib.suppress(LinkLost):  # its own end will say that
            await watch.viewer.send(frame.type, signal)


async def ended_by_viewer(hub: State, viewer: Viewer, frame: Envelope) -> None:
    """end_watch. Raises Refused."""
    watch = hub.watches.by_viewer(viewer, envelope.parse(frame, EndWatch).session_id)
    if watch is None:
        raise Refused(NO_SESSION)
    await end(hub, watch, "user_ended", viewer=False)


async def ended_by_device(hub: State, control: Control, frame: Envelope) -> None:
    """watch_ended of a device: it can't go on. Raises Refused."""
    said = envelope.parse(frame, WatchEnded)
    watch = hub.watches.by_device(control.device_id, said.session_id)
    if watch is None:
        raise Refused(NO_SESSION)
    await end(hub, watch, said.reason, device=False, why=said.why)


async def end(
    hub: State, watch: Watch[Watcher], reason: str, *, viewer: bool = True, device: bool = True, why: str = ""
) -> None:
    """End a session and tell those who do not know. `why`: for viewers who use more than what is published."""
    if not hub.watches.end(watch):
        return
    log.info("watch session over", session=watch.session_id, device=watch.device_id, reason=reason, why=why)
    if watch.view:
        hub.views.end(watch.view)
    hub.kept_watches.end(watch, reason)
    hub.spawn(hub.kept_watches.write())
    said = WatchEnded(watch.session_id, reason)
    control = hub.presence.control(watch.device_id)
    if device and control and control.instance == watch.instance:
        with contextlib.suppress(LinkLost):
            await control.send("watch_ended", said)
    if viewer and watch.viewer is not None:
        with contextlib.suppress(LinkLost):
            more = "" if watch.kind == VIEWER else why
            await watch.viewer.send("watch_ended", WatchEnded(watch.session_id, reason, more))


async def end_all(hub: State, over: list[Watch[Watcher]], reason: str) -> None:
    """End several."""
    for watch in over:
        await end(hub, watch, reason)


async def take_away(hub: State, over: list[Watch[Watcher]]) -> None:
    """End those of people who may not watch any more."""
    for watch in over:
        await end(hub, watch, "error", why=TAKEN_AWAY)


async def restore(hub: State) -> None:
    """Go on with what an earlier process of this hub had begun. Raises StoreDown."""
    for watch in await hub.kept_watches.going_on():
        if hub.watches.restore(watch, now()):
            _let_in(hub, watch)


def sweep(hub: State, time_now: float) -> None:
    """End what is over, and keep what is not. Once a second."""
    for watch, reason in hub.watches.due(time_now):
        hub.spawn(end(hub, watch, reason))
    hub.spawn(hub.kept_watches.write())
    hub.spawn(hub.kept_watches.renew(hub.watches))


async def _say(viewer: Viewer, message: str, frame: Envelope) -> None:
    await viewer.send("error", Error(message), frame.request_id)
