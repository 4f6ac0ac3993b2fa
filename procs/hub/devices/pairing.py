"""Pairing: six digits, shown beside a device, make it whose account they are typed into."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from datetime import UTC, datetime

import msgspec
from aiohttp import web
from sqlalchemy import Connection, delete, insert, select, update

from procs.errors import LinkLost, Refused
from procs.hub.devices.registry import leave_nothing
from procs.hub.people.access import address_of, is_id, refuse_lesser, signed_in, who_asks
from procs.hub.people.roles import OWNER
from procs.hub.rest import answer, body, query, refusal, too_many
from procs.hub.state import HUB, State, now
from procs.hub.store.models import devices, pairing_codes
from procs.hub.viewers import watching
from procs.wire.frames.device import Paired, PairingCode
from procs.wire.scalars import AnyId

TTL_S = 300
TRIES = 20  # to find digits that nobody has


class Pair(msgspec.Struct):
    """POST /api/devices/pair."""

    pairing_code: str


class Generate(msgspec.Struct):
    """The query of POST /api/pairing/generate."""

    device_id: AnyId = ""


async def generate(hub: State, key: int) -> PairingCode:
    """A code for this device; the one before is good no more. Raises StoreDown, Refused when there were too many."""
    if hub.rates.pairing_codes.take(str(key), now()):
        hub.counts.refuse("too many pairing codes", device=key)
        raise Refused("Too many pairing codes; try again later")
    until = time.time() + TTL_S
    code = await hub.store.run(_new_code, key, until)
    expires = datetime.fromtimestamp(until, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return PairingCode(code, expires, TTL_S)


async def post_generate(request: web.Request) -> web.Response:
    """POST /api/pairing/generate?device_id=: for its owner; in compatibility mode for anybody, until it has one.

    Else the device asks by its own connection: whoever reads the code stands beside it.
    """
    hub = request.app[HUB]
    device_id = query(request, Generate).device_id
    device = await hub.registry.find(device_id) if is_id(device_id) else None
    session = await who_asks(request)
    owner = session.user.id if session else None
    if device is None or (owner and device.owner != owner):
        raise refusal(web.HTTPNotFound, "Device not found")
    if session:
        refuse_lesser(request, session.role, OWNER)
    if not owner and (not hub.settings.compat or device.owner is not None):
        hub.counts.refuse("pairing code without proof", address=address_of(request))
        raise refusal(web.HTTPForbidden, "Only the device itself, or its owner, can ask for a pairing code")
    try:
        code = await generate(hub, device.key)
    except Refused as error:
        raise too_many(60, str(error)) from None
    return answer(code)


async def post_pair(request: web.Request) -> web.Response:
    """POST /api/devices/pair {pairing_code}: the device is the asker's from now on."""
    hub = request.app[HUB]
    session = await signed_in(request)
    refuse_lesser(request, session.role, OWNER)
    user = session.user
    code = (await body(request, Pair)).pairing_code.strip()
    rates = hub.rates
    tried = ((rates.pairing_from, address_of(request)), (rates.pairing_as, str(user.id)), (rates.pairing_all, ""))
    if wait_s := max(bucket.wait_s(key, now()) for bucket, key in tried):
        hub.counts.refuse("too many attempts to pair", user=user.username)
        raise too_many(wait_s)
    for bucket, key in tried:
        bucket.take(key, now())
    is_code = re.fullmatch(r"[0-9]{6}", code)
    paired = await hub.store.run(_pair, code, user.id, time.time()) if is_code else None
    if paired is None:
        hub.counts.refuse("wrong pairing code", user=user.username)
        raise refusal(web.HTTPNotFound, "Invalid or expired pairing code")
    for bucket, key in tried:
        bucket.give_back(key, now())
    device, device_id, name, had_owner = paired
    hub.registry.access_changed(device_id)
    hub.counts.add("paired")
    if had_owner not in (None, user.id):
        hub.events.forget(device)
    hub.events.add(device, "paired", f"by {user.username}")
    await _tell(hub, device_id, code)
    if had_owner not in (None, user.id):
        await end_views(hub, device_id)
    return answer({"message": "Device paired", "device": {"device_id": device_id, "device_name": name}})


async def _tell(hub: State, device_id: str, code: str) -> None:
    """Let the people beside the device know. One that was published earlier knows no such frame."""
    control = hub.presence.control(device_id)
    if control and control.caps:
        with contextlib.suppress(LinkLost):
            await control.send("paired", Paired(code))


async def end_views(hub: State, device_id: str) -> None:
    """A device is no longer somebody's: what that one still watches ends."""
    hub.views.cut_device(device_id)  # first: what loses its connection only would be asked for again on the next one
    hub.presence.drop_links(device_id, 1012, "The device has another owner")
    await watching.take_away(hub, hub.watches.of_device(device_id))


def _new_code(connection: Connection, key: int, until: float) -> str:
    connection.execute(delete(pairing_codes).where(pairing_codes.c.expires_at <= time.time()))
    connection.execute(delete(pairing_codes).where(pairing_codes.c.device_id == key))
    for _ in range(TRIES):
        code = f"{secrets.randbelow(1_000_000):06d}"
        if not connection.execute(select(pairing_codes.c.code).where(pairing_codes.c.code == code)).first():
            connection.execute(insert(pairing_codes).values(code=code, device_id=key, expires_at=until))
            return code
    raise Refused("Too many pairing codes; try again later")


def _pair(connection: Connection, code: str, user: int, at: float) -> tuple[int, str, str, int | None] | None:
    """(key, device id, its name, owner before) of the device that had the code; the code is used up."""
    is_good = (pairing_codes.c.code == code) & (pairing_codes.c.expires_at > at)
    row = connection.execute(
        select(devices.c.id, devices.c.device_id, devices.c.device_name, devices.c.owner_id)
        .join_from(pairing_codes, devices)
        .where(is_good)
    ).first()
    if row is None or connection.execute(delete(pairing_codes).where(is_good)).rowcount != 1:
        return None
    connection.execute(update(devices).where(devices.c.id == row.id).values(owner_id=user))
    if row.owner_id not in (None, user):
        leave_nothing(connection, row.id)
    return row.id, row.device_id, row.device_name, row.owner_id
