"""Watch sessions: a viewer asks for one, device and viewer signal through the hub, and somebody ends it."""

from __future__ import annotations

from typing import ClassVar

from procs.wire.envelope import Payload
from procs.wire.scalars import Id, StreamName, Text
from procs.wire.webrtc import Candidate, IceServers, SessionDescription


class ViewerWatchRequest(Payload, frozen=True):
    """watch_request, viewer to hub. `stream` is ours: which of the device's; "" is for the device to choose."""

    device_id: Id
    stream: StreamName = ""


class WatchResume(Payload, frozen=True):
    """watch_resume, viewer to hub, on a connection after the one that the session began on, by a viewer that says
    "resume". Answered by watch_ready with the same session, or by error."""

    session_id: Id


class WatchReady(Payload, frozen=True):
    """watch_ready, the hub's answer to a viewer's watch_request, or watch_resume."""

    session_id: Id
    mode: Text
    ice_servers: IceServers


class WatchRequest(Payload, frozen=True, omit_defaults=True):
    """watch_request, hub to device: somebody wants to watch. `stream` is ours: which one; "" is for it to choose."""

    session_id: Id
    user_id: Id
    ice_servers: IceServers
    stream: StreamName = ""


class SignalOffer(Payload, frozen=True):
    """signal_offer, viewer to hub to device."""

    max_bytes: ClassVar[int] = 512 * 1024

    session_id: Id
    sdp: SessionDescription


class SignalAnswer(Payload, frozen=True):
    """signal_answer, device to hub to viewer."""

    max_bytes: ClassVar[int] = 512 * 1024

    session_id: Id
    sdp: SessionDescription


class SignalIce(Payload, frozen=True):
    """signal_ice, both ways. None: there are no more candidates."""

    session_id: Id
    candidate: Candidate | None


class EndWatch(Payload, frozen=True):
    """end_watch, viewer to hub."""

    session_id: Id


class WatchEnded(Payload, frozen=True, omit_defaults=True):
    """watch_ended, hub to device and viewer. viewer_disconnected, user_ended, timeout, error, device_disconnected.
    `why` is ours: the same in words."""

    session_id: Id
    reason: Text
    why: Text = ""
