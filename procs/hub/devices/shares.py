"""REST of sharing a device with another user, to look at it or to manage it, and of taking that back."""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec
from aiohttp import web
from sqlalchemy import Connection, delete, exc, func, insert, select, update

from procs.errors import Refused
from procs.hub.devices.registry import Device
from procs.hub.people.access import asked_for, refuse_lesser, signed_in
from procs.hub.people.accounts import is_username
from procs.hub.people.roles import OWNER, Role
from procs.hub.rest import answer, body, refusal, too_many
from procs.hub.state import HUB, State, now
from procs.hub.store.models import shares, users
from procs.hub.times import iso
from procs.hub.viewers import watching

MAX_OF_DEVICE = 100


class Wanted(msgspec.Struct):
    """PUT /api/devices/{id}/shares/{username}."""

    role: Role


class Share(msgspec.Struct, frozen=True):
    """With whom a device is shared."""

    username: str
    role: Role
    created_at: str


class _Kept(NamedTuple):
    user: int
    created_at: float
    before: Role | None


async def get_all(request: web.Request) -> web.Response:
    """GET /api/devices/{id}/shares: by user name."""
    device, _ = await asked_for(request, OWNER)
    return answer(await request.app[HUB].store.read(_of_device, device.key))


async def put(request: web.Request) -> web.Response:
    """PUT /api/devices/{id}/shares/{username} {role}: who had another role has this one from now on."""
    hub, session = request.app[HUB], await signed_in(request)
    device, _ = await asked_for(request, OWNER)
    username, role = request.match_info["username"], (await body(request, Wanted)).role
    if wait_s := hub.rates.look_ups.wait_s(str(session.user.id), now()):
        hub.counts.refuse("too many unknown users", user=session.user.username)
        raise too_many(wait_s)
    try:
        kept = await hub.store.run(_put, device, username, role, time.time()) if is_username(username) else None
    except Refused as error:
        raise refusal(web.HTTPConflict, str(error)) from None
    if kept is None:
        hub.rates.look_ups.take(str(session.user.id), now())
        raise refusal(web.HTTPNotFound, "There is no such user")
    if kept.before != role:
        hub.registry.access_changed(device.device_id)
        hub.events.add(device.key, "shared", f"with {username} as {role}, by {session.user.username}")
    if kept.before == OWNER != role:
        await _end(hub, device, kept.user)
    return answer(Share(username, role, iso(kept.created_at)))


async def remove(request: web.Request) -> web.Response:
    """DELETE /api/devices/{id}/shares/{username}: what that user has under way of the device ends. One's own may be
    given up by anybody."""
    hub, session = request.app[HUB], await signed_in(request)
    username = request.match_info["username"]
    device, role = await asked_for(request)
    if username != session.user.username or session.role != OWNER:
        refuse_lesser(request, role, OWNER)
    user = await hub.store.run(_remove, device.key, username) if is_username(username) else None
    if user is None:
        raise refusal(web.HTTPNotFound, "It is not shared with such a user")
    hub.registry.access_changed(device.device_id)
    hub.events.add(device.key, "unshared", f"with {username}, by {session.user.username}")
    await _end(hub, device, user)
    return answer({"message": "Not shared any more"})


async def _end(hub: State, device: Device, user: int) -> None:
    """End what a user has under way of a device."""
    hub.views.cut_share(user, device.device_id)
    over = [watch for watch in hub.watches.of_device(device.device_id) if watch.user_id == user]
    await watching.take_away(hub, over)


def _of_device(connection: Connection, key: int) -> list[Share]:
    rows = connection.execute(
        select(users.c.username, shares.c.role, shares.c.created_at)
        .join_from(shares, users)
        .where(shares.c.device_id == key)
        .order_by(users.c.username)
    )
    return [Share(row.username, row.role, iso(row.created_at)) for row in rows]


def _user(connection: Connection, username: str) -> int | None:
    key: int | None = connection.execute(select(users.c.id).where(users.c.username == username)).scalar()
    return key


def _put(connection: Connection, device: Device, username: str, role: Role, at: float) -> _Kept | None:
    """None for an unknown user. Raises Refused."""
    user = _user(connection, username)
    if user is None:
        return None
    if user == device.owner:
        raise Refused("The device is theirs already")
    of_device = shares.c.device_id == device.key
    is_meant = of_device & (shares.c.user_id == user)
    found = connection.execute(select(shares.c.role, shares.c.created_at).where(is_meant)).first()
    if found:
        connection.execute(update(shares).where(is_meant).values(role=role))
        return _Kept(user, found.created_at, found.role)
    if connection.execute(select(func.count()).select_from(shares).where(of_device)).scalar_one() >= MAX_OF_DEVICE:
        raise Refused(f"The device is shared with {MAX_OF_DEVICE} users already")
    try:
        connection.execute(insert(shares).values(device_id=device.key, user_id=user, role=role, created_at=at))
    except exc.IntegrityError:  # by another hub, or user or device are gone, since we looked
        raise Refused("Somebody else has changed this just now: look, and try again") from None
    return _Kept(user, at, None)


def _remove(connection: Connection, device: int, username: str) -> int | None:
    """The user it was shared with; None where it was not."""
    user = _user(connection, username)
    is_meant = (shares.c.device_id == device) & (shares.c.user_id == user)
    gone = user is not None and connection.execute(delete(shares).where(is_meant)).rowcount == 1
    return user if gone else None
