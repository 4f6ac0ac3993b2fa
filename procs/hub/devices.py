"""REST of devices: make one known, list, look at, rename, open, delete."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from aiohttp import web

from procs.errors import Refused
from procs.hub import watching
from procs.hub.access import address_of, cookie_name, device_of, signed_in, view_path
from procs.hub.accounts import VIEW_TTL_S
from procs.hub.registry import Device
from procs.hub.rest import answer, body, refusal, too_many
from procs.hub.state import HUB, State, now
from procs.wire.challenge import Verifier
from procs.wire.envelope import Id

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Kind = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+\Z")]


class Registration(msgspec.Struct):
    """POST /api/devices/register."""

    device_id: Id
    device_name: Name | None = None
    device_type: Kind = "camera"
    verifier: Annotated[str, msgspec.Meta(max_length=255)] | None = None


class Change(msgspec.Struct):
    """PATCH /api/devices/{id}."""

    device_name: Name


async def post_register(request: web.Request) -> web.Response:
    """POST /api/devices/register: anybody may, and nothing of a known device is changed or told by it."""
    hub, address = request.app[HUB], address_of(request)
    if wait_s := hub.rates.registrations.take(address, now()):
        hub.counts.refuse("too many registrations", address=address)
        raise too_many(wait_s)
    wanted = await body(request, Registration)
    _refuse_wrong(wanted.verifier)
    known = await hub.registry.find(wanted.device_id)
    if known is None and (wait_s := hub.rates.new_devices.take(address, now())):
        hub.counts.refuse("too many new devices", address=address)
        raise too_many(wait_s)
    if known is None or (wanted.verifier and known.verifier is None):
        name = wanted.device_name or wanted.device_id
        await hub.registry.register(wanted.device_id, name, wanted.device_type, wanted.verifier)
    return answer({"device_id": wanted.device_id, "message": "Device registered"})


def _refuse_wrong(verifier: str | None) -> None:
    try:
        if verifier is not None:
            Verifier.from_text(verifier)
    except Refused as error:
        raise refusal(web.HTTPBadRequest, str(error)) from None


async def get_all(request: web.Request) -> web.Response:
    """GET /api/devices: the asker's own."""
    hub, session = request.app[HUB], await signed_in(request)
    return answer([_shown(hub, device) for device in await hub.registry.of_owner(session.user.id)])


def _shown(hub: State, device: Device) -> dict[str, object]:
    shown = {"id": device.key, "device_id": device.device_id, "device_name": device.name, "device_type": device.type}
    return shown | _presence(hub, device)


def _presence(hub: State, device: Device) -> dict[str, object]:
    control = hub.presence.control(device.device_id)
    seen = time.time() - (now() - control.peer.heard_at) if control else device.last_seen
    text = None if seen is None else datetime.fromtimestamp(seen, UTC).replace(tzinfo=None).isoformat()
    return {"is_online": control is not None, "last_seen": text}


async def _asked_for(request: web.Request) -> Device:
    """The device in the path, which is the asker's."""
    session = await signed_in(request)
    return await device_of(request.app[HUB], session.user, request.match_info["id"])


async def get_status(request: web.Request) -> web.Response:
    """GET /api/devices/{id}/status: whether it is here, and when it was."""
    device = await _asked_for(request)
    return answer({"device_id": device.device_id} | _presence(request.app[HUB], device))


async def patch(request: web.Request) -> web.Response:
    """PATCH /api/devices/{id}: call it otherwise."""
    hub, device = request.app[HUB], await _asked_for(request)
    name = (await body(request, Change)).device_name
    await hub.registry.rename(device, name)
    return answer(_shown(hub, device._replace(name=name)))


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/devices/{id}: it is forgotten, with its credential, and its connections end."""
    hub, device = request.app[HUB], await _asked_for(request)
    await hub.registry.delete(device)
    hub.tickets.revoke(device.device_id)
    await watching.end_all(hub, hub.watches.of_device(device.device_id), "error")
    hub.views.cut_device(device.device_id)
    if control := hub.presence.forget(device.device_id):
        hub.spawn(control.peer.close("Device not found"))
    return answer({"message": "Device deleted"})


async def post_open(request: web.Request) -> web.Response:
    """POST /api/devices/{id}/open: lets the asker's browser look at the device's own pages, for VIEW_TTL_S seconds, by
    a cookie that is good for nothing else."""
    hub, session = request.app[HUB], await signed_in(request)
    device = await device_of(hub, session.user, request.match_info["id"])
    path = view_path(device.device_id)
    try:
        token = await hub.accounts.open_view(session, device.key)
    except Refused as error:
        raise refusal(web.HTTPUnauthorized, str(error)) from None
    response = answer({"url": path})
    response.set_cookie(
        cookie_name(device.device_id),
        token,
        path=path,
        max_age=int(VIEW_TTL_S),
        httponly=True,
        samesite="Strict",
        secure=hub.settings.is_behind_tls,
    )
    return response
