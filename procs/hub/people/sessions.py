"""REST of the page's log-in: a cookie that no script can read. And how the end of a log-in reaches what it let in."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from procs.hub.people.access import (
    SESSION_COOKIE,
    GuardedLogin,
    address_of,
    cookie_name,
    is_https,
    refuse_foreign_page,
    session_cookies,
    signed_in,
)
from procs.hub.people.accounts import PAGE_TTL_S, USERNAME, User, is_username
from procs.hub.people.passwords import LENGTHS
from procs.hub.rest import answer, body, refusal
from procs.hub.signalling import signal_ws
from procs.hub.state import HUB, State
from procs.hub.tunnel import origins
from procs.hub.viewers import viewer_ws
from procs.settings import VERSION

Password = Annotated[str, msgspec.Meta(max_length=LENGTHS.stop - 1)]
# Of an account to be made. What is wrong with them is said in words (auth.refuse_poor), not by these patterns.
NewName = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{USERNAME}$"})]
NewPassword = Annotated[Password, msgspec.Meta(extra_json_schema={"minLength": LENGTHS.start})]


class Login(msgspec.Struct):
    """POST /api/session, POST /api/auth/login."""

    username: str
    password: Password


class Person(msgspec.Struct, frozen=True):
    """Who has logged in."""

    id: int
    username: str
    email: str
    is_admin: bool


class LoggedIn(msgspec.Struct, frozen=True):
    """Answer to POST /api/session, and to a change of the password by cookie."""

    user: Person


class SessionShown(msgspec.Struct, frozen=True):
    """GET /api/session. `views`: whether devices' own pages have origins of their own here."""

    user: Person
    version: str
    views: bool


def shown(user: User) -> Person:
    """What somebody sees of themselves."""
    return Person(user.id, user.username, user.email, user.is_admin)


async def post(request: web.Request) -> web.Response:
    """POST /api/session {username, password}: a new log-in, whatever cookie came with it; that one's ends."""
    hub = request.app[HUB]
    refuse_foreign_page(request)  # or it might log somebody in as somebody else
    given = await body(request, Login)
    if not is_username(given.username):
        raise refusal(web.HTTPUnauthorized, "Incorrect username or password")
    async with GuardedLogin(hub, address_of(request), given.username):
        user, token = await hub.accounts.log_in(given.username, given.password, "page")
    hub.counts.add("logins")
    for old in session_cookies(request):
        if session := await hub.accounts.session(old, "page"):
            await hub.accounts.log_out(session)
            end_login(hub, session.login)
    return granted(request, user, token)


def granted(request: web.Request, user: User, token: str) -> web.Response:
    """The answer to a page that has logged in."""
    response = answer(LoggedIn(shown(user)))
    _set_cookie(request, response, token, int(PAGE_TTL_S))
    return response


async def get(request: web.Request) -> web.Response:
    """GET /api/session: who asks, and what this hub is."""
    user = (await signed_in(request)).user
    return answer(SessionShown(shown(user), VERSION, views=bool(origins.origin_of(request, ""))))


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/session: ends the log-in, with all that came of it."""
    hub, session = request.app[HUB], await signed_in(request)
    await hub.accounts.log_out(session)
    end_login(hub, session.login)
    response = answer({"message": "Logged out"})
    _set_cookie(request, response, "", 0)
    return response


def _set_cookie(request: web.Request, response: web.Response, token: str, max_age: int) -> None:
    response.set_cookie(
        cookie_name(request, SESSION_COOKIE),
        token,
        path="/",
        max_age=max_age,
        httponly=True,
        samesite="Strict",
        secure=is_https(request),
    )


def end_login(hub: State, login: str) -> None:
    """A log-in has ended: so does what it has under way."""
    viewer_ws.end_login(hub, login=login)
    signal_ws.end_login(hub, login=login)
    hub.views.cut_login(login)


def end_user(hub: State, user: int) -> None:
    """Every log-in of a user has ended."""
    hub.accounts.forget_user(user)
    viewer_ws.end_login(hub, user=user)
    signal_ws.end_login(hub, user=user)
    hub.views.cut_user(user)
