"""REST of accounts: register, log in, renew, log out, change the password."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from procs.errors import Refused
from procs.hub import viewer_ws
from procs.hub.access import GuardedLogin, address_of, signed_in, token_of
from procs.hub.accounts import Taken, User, is_username
from procs.hub.passwords import LENGTHS
from procs.hub.rest import answer, body, refusal, too_many
from procs.hub.state import HUB, State, now

Password = Annotated[str, msgspec.Meta(max_length=LENGTHS.stop - 1)]


class Registration(msgspec.Struct):
    """POST /api/auth/register."""

    username: str
    password: Password
    email: Annotated[str, msgspec.Meta(max_length=254, pattern=r"^(?:[^\x00-\x20@]+@[^\x00-\x20@]+)?\Z")] = ""


class Login(msgspec.Struct):
    """POST /api/auth/login."""

    username: str
    password: Password


class PasswordChange(msgspec.Struct):
    """POST /api/auth/password."""

    old_password: Password
    new_password: Password


async def post_register(request: web.Request) -> web.Response:
    """POST /api/auth/register: for anybody where that is open, else by an admin."""
    hub, address = request.app[HUB], address_of(request)
    is_by_admin = await _may_register(request, hub, address)
    wanted = await body(request, Registration)
    if not is_username(wanted.username):
        raise refusal(web.HTTPBadRequest, "A username has 1 to 64 characters, none of them a colon or a control")
    _refuse_poor(wanted.password)
    if not is_by_admin and (wait_s := hub.rates.accounts.take(address, now())):
        hub.counts.refuse("too many registrations", address=address)
        raise too_many(wait_s)
    try:
        user, token = await hub.accounts.register(wanted.username, wanted.email, wanted.password)
    except Taken:
        if not is_by_admin:
            hub.rates.accounts.give_back(address, now())
        raise refusal(web.HTTPBadRequest, "Username or email already registered") from None
    return _granted(user, token)


async def _may_register(request: web.Request, hub: State, address: str) -> bool:
    """Whether an admin asks. Raises HTTPForbidden where only an admin may."""
    if token_of(request) and (await signed_in(request)).user.is_admin:
        return True
    if hub.settings.is_registration_open:
        return False
    hub.counts.refuse("registration is closed", address=address)
    raise refusal(web.HTTPForbidden, "Registration is closed: an admin makes accounts, or PLANARIA_OPEN_REGISTRATION=1")


def _refuse_poor(password: str) -> None:
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
    try:
        token = await request.app[HUB].accounts.renew(session)
    except Refused as error:
        raise refusal(web.HTTPUnauthorized, str(error)) from None
    return _granted(session.user, token)


async def post_logout(request: web.Request) -> web.Response:
    """POST /api/auth/logout: ends the log-in, with all that came of it."""
    session = await signed_in(request)
    await request.app[HUB].accounts.log_out(session)
    viewer_ws.end_login(request.app[HUB], login=session.login)
    request.app[HUB].views.cut_login(session.login)
    return answer({"message": "Logged out"})


async def post_password(request: web.Request) -> web.Response:
    """POST /api/auth/password: sets another one; every log-in of the user ends, and a new one begins."""
    hub, user = request.app[HUB], (await signed_in(request)).user
    given = await body(request, PasswordChange)
    _refuse_poor(given.new_password)
    async with GuardedLogin(hub, address_of(request), user.username):
        token = await hub.accounts.change_password(user, given.old_password, given.new_password)
    viewer_ws.end_login(hub, user=user.id)
    hub.views.cut_user(user.id)
    return _granted(user, token)


def _granted(user: User, token: str) -> web.Response:
    shown = {"id": user.id, "username": user.username, "email": user.email}
    return answer({"access_token": token, "token_type": "bearer", "user": shown})
