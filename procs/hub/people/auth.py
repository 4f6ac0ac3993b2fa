"""REST of accounts: register, log in, renew, log out, change the password."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from procs.errors import Refused
from procs.hub.people.access import GuardedLogin, address_of, person, signed_in, who_asks
from procs.hub.people.accounts import Taken, User, is_username
from procs.hub.people.passwords import LENGTHS
from procs.hub.people.sessions import Login, NewName, NewPassword, Password, end_login, end_user, granted
from procs.hub.rest import answer, body, refusal, too_many
from procs.hub.state import HUB, State, now

Email = Annotated[str, msgspec.Meta(max_length=254, pattern=r"^(?:[^\x00-\x20@]+@[^\x00-\x20@]+)?\Z")]


class Registration(msgspec.Struct):
    """POST /api/auth/register."""

    username: NewName
    password: NewPassword
    email: Email = ""


class PasswordChange(msgspec.Struct):
    """POST /api/auth/password."""

    old_password: Password
    new_password: NewPassword


async def post_register(request: web.Request) -> web.Response:
    """POST /api/auth/register: for anybody where that is open, else by an admin."""
    hub, address = request.app[HUB], address_of(request)
    is_by_admin = await _may_register(request, hub, address)
    wanted = await body(request, Registration)
    refuse_poor_name(wanted.username)
    refuse_poor(wanted.password)
    if not is_by_admin and (wait_s := hub.rates.accounts.take(address, now())):
        hub.counts.refuse("too many registrations", address=address)
        raise too_many(wait_s)
    try:
        user, token = await hub.accounts.register(wanted.username, wanted.email, wanted.password)
    except Taken:  # counted all the same: it is a hash of a password, and tells who has an account here
        raise refusal(web.HTTPBadRequest, "Username or email already registered") from None
    return _granted(user, token)


async def _may_register(request: web.Request, hub: State, address: str) -> bool:
    """Whether an admin asks. Raises HTTPForbidden where only an admin may."""
    session = await who_asks(request)
    if session and session.user.is_admin and session.kind != "program":
        return True
    if hub.settings.is_registration_open:
        return False
    hub.counts.refuse("registration is closed", address=address)
    raise refusal(web.HTTPForbidden, "Registration is closed: an admin makes accounts, or PLANARIA_OPEN_REGISTRATION=1")


def refuse_poor_name(username: str) -> None:
    """Raise HTTPBadRequest for what nobody can be called."""
    if not is_username(username):
        raise refusal(web.HTTPBadRequest, "A username has 1 to 64 characters, none of them a colon or a control")


def refuse_poor(password: str) -> None:
    """Raise HTTPBadRequest for what can be nobody's password."""
    if len(password) not in LENGTHS:
        raise refusal(web.HTTPBadRequest, f"A password has {LENGTHS.start} to {LENGTHS.stop - 1} characters")


async def post_login(request: web.Request) -> web.Response:
    """POST /api/auth/login: an access token."""
    hub = request.app[HUB]
    given = await body(request, Login)
    if not is_username(given.username):
        raise refusal(web.HTTPUnauthorized, "Incorrect username or password")
    async with GuardedLogin(hub, address_of(request), given.username):
        user, token = await hub.accounts.log_in(given.username, given.password)
    hub.counts.add("logins")
    return _granted(user, token)


async def post_renew(request: web.Request) -> web.Response:
    """POST /api/auth/renew: another token for the same log-in; the one that asks stays good for its time."""
    session = await signed_in(request)
    if session.kind != "access":
        raise refusal(web.HTTPForbidden, "Only an access token can be renewed")
    try:
        token = await request.app[HUB].accounts.renew(session)
    except Refused as error:
        raise refusal(web.HTTPUnauthorized, str(error)) from None
    return _granted(session.user, token)


async def post_logout(request: web.Request) -> web.Response:
    """POST /api/auth/logout: ends the log-in, with all that came of it."""
    session = await signed_in(request)
    await request.app[HUB].accounts.log_out(session)
    end_login(request.app[HUB], session.login)
    return answer({"message": "Logged out"})


async def post_password(request: web.Request) -> web.Response:
    """POST /api/auth/password: sets another one; every log-in and program's token of the user ends, and a new log-in
    begins, of the kind of the one that asks."""
    hub, session = request.app[HUB], await person(request)
    user, given = session.user, await body(request, PasswordChange)
    refuse_poor(given.new_password)
    async with GuardedLogin(hub, address_of(request), user.username):
        token = await hub.accounts.change_password(user, given.old_password, given.new_password, session.kind)
    end_user(hub, user.id)
    return granted(request, user, token) if session.kind == "page" else _granted(user, token)


def _granted(user: User, token: str) -> web.Response:
    shown = {"id": user.id, "username": user.username, "email": user.email}
    return answer({"access_token": token, "token_type": "bearer", "user": shown})
