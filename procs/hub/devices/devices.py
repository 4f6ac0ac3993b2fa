"""REST of devices: make one known, list, look at, what has happened to it, rename, open, delete."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from procs.hub.devices.announced import Stream
from procs.hub.devices.events import KEPT, Event
from procs.hub.devices.registry import Device, Listed
from procs.hub.people.access import address_of, asked_for, signed_in
from procs.hub.people.roles import OWNER, Role, lesser
from procs.hub.rest import NAME, answer, body, query, refusal, too_many
from procs.hub.state import HUB, State, now
from procs.hub.times import iso
from procs.hub.viewers import watching
from procs.wire import challenge
from procs.wire.scalars import Id

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=NAME)]
Kind = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+\Z")]


class Registration(msgspec.Struct):
    """POST /api/devices/register."""

    device_id: Id
    device_name: Name | None = None
    device_type: Kind = "camera"
    verifier: Annotated[str, msgspec.Meta(pattern=challenge.TEXT)] | None = None


class Change(msgspec.Struct):
    """PATCH /api/devices/{id}."""

    device_name: Name


class Shown(msgspec.Struct, frozen=True):
    """A device. `owner`: the name of whose it is; `last_seen`, `connected_at`: as times; what is not known is empty."""

    id: int
    device_id: str
    device_name: str
    device_type: str
    is_online: bool
    last_seen: str | None
    role: Role
    owner: str
    state: Literal["online", "offline", "never seen"]
    agent_version: str
    caps: list[str]
    streams: tuple[Stream, ...]
    has_suite: bool
    connected_at: str | None


class EventsWanted(msgspec.Struct):
    """Query of GET /api/devices/{id}/events: so many, of those before this id."""

    before: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=KEPT)] = KEPT


class EventsShown(msgspec.Struct, frozen=True):
    """GET /api/devices/{id}/events: newest first, and whether there are more."""

    events: list[Event]
    more: bool


async def post_register(request: web.Request) -> web.Response:
    """POST /api/devices/register: anybody may, and nothing of a known device is changed or told by it."""
    hub, address = request.app[HUB], address_of(request)
    if wait_s := hub.rates.registrations.take(address, now()):
        hub.counts.refuse("too many registrations", address=address)
        raise too_many(wait_s)
    wanted = await body(request, Registration)
    known = await hub.registry.find(wanted.device_id)
    if known is None and (wait_s := hub.rates.new_devices.take(address, now())):
        hub.counts.refuse("too many new devices", address=address)
        raise too_many(wait_s)
    if known is None or (wanted.verifier and known.verifier is None):
        name = wanted.device_name or wanted.device_id
        await hub.registry.register(wanted.device_id, name, wanted.device_type, wanted.verifier)
    return answer({"device_id": wanted.device_id, "message": "Device registered"})


async def get_all(request: web.Request) -> web.Response:
    """GET /api/devices: the asker's own, and those shared with them."""
    hub, session = request.app[HUB], await signed_in(request)
    return answer([shown(hub, listed, session.role) for listed in await hub.registry.of_user(session.user.id)])


async def get_one(request: web.Request) -> web.Response:
    """GET /api/devices/{id}: one of them."""
    device, _ = await asked_for(request)
    return await _answered(request, device)


async def _answered(request: web.Request, device: Device) -> web.Response:
    """The device as the asker sees it now."""
    hub, session = request.app[HUB], await signed_in(request)
    found = await hub.registry.of_user(session.user.id, [device.device_id])
    if not found:  # it is gone, or theirs no more, since we looked
        raise refusal(web.HTTPNotFound, "Device not found")
    return answer(shown(hub, found[0], session.role))


def shown(hub: State, listed: Listed, role: Role) -> Shown:
    """A device as somebody sees it, by a credential that allows `role` at most."""
    device, control = listed.device, hub.presence.control(listed.device.device_id)
    seen = _seen(hub, device)
    return Shown(
        device.key,
        device.device_id,
        device.name,
        device.type,
        control is not None,
        iso(seen),
        lesser(listed.role, role),
        listed.owner,
        "online" if control else "never seen" if seen is None else "offline",
        control.agent_version if control else "",
        sorted(control.caps) if control else [],
        control.streams if control else (),
        control is not None and "suite" in control.caps,
        iso(control.connected_at) if control else None,
    )


def _seen(hub: State, device: Device) -> float | None:
    control = hub.presence.control(device.device_id)
    if control:
        return time.time() - (now() - control.peer.heard_at)
    return hub.presence.went_at(device.device_id) or device.last_seen


async def get_status(request: web.Request) -> web.Response:
    """GET /api/devices/{id}/status: whether it is here, and when it was."""
    hub, (device, _) = request.app[HUB], await asked_for(request)
    is_online = hub.presence.is_online(device.device_id)
    return answer({"device_id": device.device_id, "is_online": is_online, "last_seen": iso(_seen(hub, device))})


async def get_events(request: web.Request) -> web.Response:
    """GET /api/devices/{id}/events: what has happened to it, the newest first."""
    device, role = await asked_for(request)
    wanted = query(request, EventsWanted)
    found, more = await request.app[HUB].events.of(device.key, role, wanted.before, wanted.limit)
    return answer(EventsShown(found, more))


async def patch(request: web.Request) -> web.Response:
    """PATCH /api/devices/{id}: call it otherwise."""
    hub, session = request.app[HUB], await signed_in(request)
    device, _ = await asked_for(request, OWNER)
    name = (await body(request, Change)).device_name
    await hub.registry.rename(device, name)
    if name != device.name:
        hub.events.add(device.key, "renamed", f"from {device.name} to {name}, by {session.user.username}")
    return await _answered(request, device)


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/devices/{id}, for whoever owns it: it is forgotten, with its credential, and its connections end."""
    hub, session = request.app[HUB], await signed_in(request)
    device, _ = await asked_for(request, OWNER)
    if device.owner != session.user.id:
        raise refusal(web.HTTPForbidden, "Only whoever owns the device may remove it")
    await hub.registry.delete(device)
    hub.events.forget(device.key)  # which the next device may get
    hub.tickets.revoke(device.device_id)
    hub.entries.revoke(device.device_id)
    await watching.take_away(hub, hub.watches.of_device(device.device_id))
    hub.views.cut_device(device.device_id)
    if control := hub.presence.forget(device.device_id):
        hub.spawn(control.peer.close("Device not found"))
    return answer({"message": "Device deleted"})
