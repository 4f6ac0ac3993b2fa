"""REST of tokens for programs: made by somebody who has logged in, good for a time, for looking only or for all."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from aiohttp import web
from sqlalchemy import Connection, func, insert, select

from procs.errors import Refused
from procs.hub.people import logins
from procs.hub.people.access import person
from procs.hub.people.logins import Session, digest_of, new_login, new_token
from procs.hub.people.roles import Role
from procs.hub.people.sessions import end_login
from procs.hub.rest import NAME, answer, body, refusal
from procs.hub.state import HUB
from procs.hub.store.models import api_tokens, tokens
from procs.hub.times import iso

DAY_S = 86_400.0
MAX_OF_USER = 200


class Wanted(msgspec.Struct):
    """POST /api/tokens."""

    name: Annotated[
        str,
        msgspec.Meta(min_length=1, max_length=64, pattern=NAME),
    ]
    role: Role
    days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 365


class Shown(msgspec.Struct, frozen=True):
    """A token as it is listed. `last_used` to a minute."""

    id: int
    name: str
    role: Role
    created_at: str
    expires_at: str
    last_used: str | None


class Made(msgspec.Struct, frozen=True):
    """Answer to POST /api/tokens: the one time that the token is shown."""

    id: int
    name: str
    role: Role
    token: str
    created_at: str
    expires_at: str


async def get_all(request: web.Request) -> web.Response:
    """GET /api/tokens: the asker's."""
    hub, session = request.app[HUB], await person(request)
    await hub.accounts.write_used()
    return answer(await hub.store.read(_of_user, session.user.id, time.time()))


async def post(request: web.Request) -> web.Response:
    """POST /api/tokens: make one, which is shown this once."""
    hub, asker = request.app[HUB], await person(request)
    wanted = await body(request, Wanted)
    token, at = new_token(), time.time()
    session = Session(asker.user, "program", None, new_login(), at, at + wanted.days * DAY_S, wanted.role)
    try:
        key = await hub.store.run(_add, digest_of(token), session, wanted.name, asker.login)
    except Refused as error:
        raise refusal(web.HTTPConflict, str(error)) from None
    if key is None:
        raise refusal(web.HTTPUnauthorized, "This log-in has ended: log in again")
    return answer(Made(key, wanted.name, wanted.role, token, iso(at), iso(session.expires_at)))


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/tokens/{id}: it is good for nothing now, and what it has under way ends."""
    hub, session = request.app[HUB], await person(request)
    login = await hub.store.run(_remove, session.user.id, int(request.match_info["id"]))
    if login is None:
        raise refusal(web.HTTPNotFound, "Token not found")
    hub.accounts.forget_login(login)
    end_login(hub, login)
    return answer({"message": "Token deleted"})


def _of_user(connection: Connection, user: int, now: float) -> list[Shown]:
    rows = connection.execute(
        select(api_tokens, tokens.c.role, tokens.c.expires_at)
        .join_from(api_tokens, tokens)
        .where(tokens.c.user_id == user, tokens.c.expires_at > now)
        .order_by(api_tokens.c.id)
    )
    return [Shown(r.id, r.name, r.role, iso(r.created_at), iso(r.expires_at), iso(r.last_used)) for r in rows]


def _add(connection: Connection, digest: str, session: Session, name: str, login: str) -> int | None:
    """Its id; None where the log-in that makes it has ended. Raises Refused for one too many."""
    if not logins.holds(connection, session.user.id, login, session.login_at):
        return None
    mine = (tokens.c.user_id == session.user.id) & (tokens.c.kind == "program")
    if connection.execute(select(func.count()).select_from(tokens).where(mine)).scalar_one() >= MAX_OF_USER:
        raise Refused(f"You have {MAX_OF_USER} tokens: delete one first")
    logins.insert_token(connection, digest, session)
    added = insert(api_tokens).values(digest=digest, name=name, created_at=session.login_at)
    key: int = connection.execute(added.returning(api_tokens.c.id)).scalar_one()
    return key


def _remove(connection: Connection, user: int, key: int) -> str | None:
    """The log-in that has ended by that; None where the user has no such token."""
    is_meant = (api_tokens.c.id == key) & (tokens.c.user_id == user)
    login: str | None = connection.execute(
        select(tokens.c.login).join_from(api_tokens, tokens).where(is_meant)
    ).scalar()
    if login is not None:
        logins.end_login(connection, user, login)
    return login
