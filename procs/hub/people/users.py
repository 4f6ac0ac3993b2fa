"""REST of accounts, for admins: list, make, promote and demote, give another password, delete."""

from __future__ import annotations

import time

import msgspec
from aiohttp import web
from sqlalchemy import Connection, delete, func, select, update

from procs.hub.devices.pairing import end_views
from procs.hub.devices.registry import leave_nothing
from procs.hub.people.access import admin, person
from procs.hub.people.accounts import Taken, add_user, set_password
from procs.hub.people.auth import Email, refuse_poor, refuse_poor_name
from procs.hub.people.sessions import NewName, NewPassword, end_user
from procs.hub.rest import answer, body, refusal
from procs.hub.state import HUB
from procs.hub.store.models import devices, tokens, users
from procs.hub.times import iso


class Wanted(msgspec.Struct):
    """POST /api/users."""

    username: NewName
    password: NewPassword
    email: Email = ""
    is_admin: bool = False


class Change(msgspec.Struct):
    """PATCH /api/users/{id}."""

    is_admin: bool | None = None
    password: NewPassword | None = None


class Shown(msgspec.Struct, frozen=True):
    """An account. `devices`: how many it owns."""

    id: int
    username: str
    email: str
    is_admin: bool
    created_at: str
    devices: int


class LastAdmin(Exception):
    """There would be nobody left who may do this."""


async def get_all(request: web.Request) -> web.Response:
    """GET /api/users: all accounts."""
    await _manager(request)
    return answer(await request.app[HUB].store.read(_listed))


async def post(request: web.Request) -> web.Response:
    """POST /api/users: make an account."""
    await _manager(request)
    hub, wanted = request.app[HUB], await body(request, Wanted)
    refuse_poor_name(wanted.username)
    refuse_poor(wanted.password)
    kept = await hub.accounts.hashed(wanted.password)
    try:
        user = await hub.store.run(add_user, wanted.username, wanted.email, kept, time.time(), is_admin=wanted.is_admin)
    except Taken:
        raise refusal(web.HTTPConflict, "Somebody has this username or email already") from None
    return answer((await hub.store.read(_listed, user.id))[0])


async def patch(request: web.Request) -> web.Response:
    """PATCH /api/users/{id}: a demoted user's log-ins end; another password ends tokens, too."""
    await _manager(request)
    hub, key, change = request.app[HUB], int(request.match_info["id"]), await body(request, Change)
    kept = None
    if change.password is not None:
        refuse_poor(change.password)
        kept = await hub.accounts.hashed(change.password)
    try:
        has_ended = await hub.store.run(_change, key, change.is_admin, kept)
    except LastAdmin:
        raise _last_admin() from None
    hub.accounts.forget_user(key)
    if has_ended:
        end_user(hub, key)
    found = await hub.store.read(_listed, key)
    if not found:
        raise _unknown()
    return answer(found[0])


async def remove(request: web.Request) -> web.Response:
    """DELETE /api/users/{id}: all that they have under way ends, and their devices are nobody's."""
    await _manager(request)
    hub, key = request.app[HUB], int(request.match_info["id"])
    try:
        owned = await hub.store.run(_remove, key)
    except LastAdmin:
        raise _last_admin() from None
    if owned is None:
        raise _unknown()
    end_user(hub, key)
    for device, device_id in owned:
        hub.events.forget(device)
        hub.registry.access_changed(device_id)
        await end_views(hub, device_id)
    return answer({"message": "User deleted"})


async def _manager(request: web.Request) -> None:
    await admin(request)
    await person(request)


def _unknown() -> web.HTTPException:
    return refusal(web.HTTPNotFound, "User not found")


def _last_admin() -> web.HTTPException:
    return refusal(web.HTTPConflict, "This is the last admin: make another one first")


def _listed(connection: Connection, key: int | None = None) -> list[Shown]:
    owned = select(func.count()).where(devices.c.owner_id == users.c.id).scalar_subquery()
    wanted = select(users, owned.label("owned")).order_by(users.c.username)
    if key is not None:
        wanted = wanted.where(users.c.id == key)
    return [
        Shown(row.id, row.username, row.email or "", row.is_admin, iso(row.created_at), row.owned)
        for row in connection.execute(wanted)
    ]


def _change(connection: Connection, key: int, is_admin: bool | None, kept: str | None) -> bool:
    """Whether log-ins have ended by that. Raises LastAdmin."""
    is_demoted = is_admin is False and _would_leave(connection, key)
    if is_admin is not None:
        connection.execute(update(users).where(users.c.id == key).values(is_admin=is_admin))
    if is_demoted:
        connection.execute(delete(tokens).where(tokens.c.user_id == key, tokens.c.kind != "program"))
    if kept is not None:
        set_password(connection, key, kept)
    return is_demoted or kept is not None


def _would_leave(connection: Connection, key: int) -> bool:
    """Whether this is an admin. Raises LastAdmin for the last; holds all of them, so that two can't go at once."""
    admins = list(connection.execute(select(users.c.id).where(users.c.is_admin).with_for_update()).scalars())
    if admins == [key]:
        raise LastAdmin
    return key in admins


def _remove(connection: Connection, key: int) -> list[tuple[int, str]] | None:
    """Keys and ids of the devices that were theirs; None where there is no such user. Raises LastAdmin."""
    _would_leave(connection, key)
    owned = connection.execute(select(devices.c.id, devices.c.device_id).where(devices.c.owner_id == key)).all()
    if connection.execute(delete(users).where(users.c.id == key)).rowcount != 1:
        return None
    for row in owned:
        leave_nothing(connection, row.id)
    return [(row.id, row.device_id) for row in owned]
