"""What a viewer is told of without asking again: devices, their suites, and what happens to them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from procs.wire.envelope import MAX_BYTES, Payload
from procs.wire.frames.suite import Process, TunnelPeer, WatchedStream
from procs.wire.scalars import AnyId, Time

Ids = Annotated[list[AnyId], msgspec.Meta(max_length=16)]


class Subscribe(Payload, frozen=True):
    """subscribe, viewer to hub: what to be told of from now on, and nothing else. "" is the hub's own machine."""

    devices: bool = False
    suite: Ids = msgspec.field(default_factory=list)
    events: Ids = msgspec.field(default_factory=list)


class Devices(Payload, frozen=True):
    """devices, hub to viewer: all that it may see, as GET /api/devices has them."""

    max_bytes: ClassVar[int] = MAX_BYTES

    devices: list[Any]


class DeviceChanged(Payload, frozen=True):
    """device_changed, hub to viewer: one of them is otherwise now, or new."""

    max_bytes: ClassVar[int] = MAX_BYTES

    device: Any


class DeviceGone(Payload, frozen=True):
    """device_gone, hub to viewer: it may not see this one any more."""

    device_id: AnyId


class ViewerSuite(Payload, frozen=True):
    """suite, hub to viewer. A device's may grow on its way: 1e15 becomes 1000000000000000.0."""

    max_bytes: ClassVar[int] = MAX_BYTES

    device_id: AnyId
    at: Time
    processes: list[Process]
    troubles: list[str]
    tunnel: list[TunnelPeer] = msgspec.field(default_factory=list)
    watching: list[WatchedStream] = msgspec.field(default_factory=list)


class ViewerEvent(Payload, frozen=True):
    """event, hub to viewer: as GET /api/devices/{id}/events has it."""

    device_id: AnyId
    event: Any
