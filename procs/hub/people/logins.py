"""Log-ins as the store keeps them: every token by its hash, and whose it is. Work for the store, and what it is about.

A token is random and kept as its hash, so that neither the store nor a log of it lets anybody in.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from procs.hub.people.roles import OWNER, Role
from procs.hub.store.models import api_tokens, tokens, users

# access: of a log-in by a program; page: of a log-in by a browser, as its cookie; program: made by somebody for a
# program; view: for looking at one device.
Kind = Literal["access", "page", "program", "view"]
SENT: tuple[Kind, ...] = ("access", "program")  # those that whoever asks sends on purpose
MAX_TOKENS = 200  # of one user and kind; the oldest go


class User(NamedTuple):
    """Somebody with an account."""

    id: int
    username: str
    email: str
    is_admin: bool


class Session(NamedTuple):
    """A token that is good, and whose it is. `device`: the key of the one device it is for, None for all; `role`: what
    it allows at most."""

    user: User
    kind: Kind
    device: int | None
    login: str
    login_at: float
    expires_at: float
    role: Role = OWNER


def new_token() -> str:
    """One that nobody can guess."""
    return secrets.token_urlsafe(32)


def new_login() -> str:
    """The name of a log-in, which all that comes of it bears."""
    return secrets.token_hex(16)


def digest_of(token: str) -> str:
    """What the store keeps of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def user_of(row: Row[*tuple[Any, ...]]) -> User:
    """Of a row of users."""
    return User(row.id, row.username, row.email or "", row.is_admin)


_SESSION = (
    select(users.c.id, users.c.username, users.c.email, users.c.is_admin)
    .add_columns(tokens.c.kind, tokens.c.device_id, tokens.c.login, tokens.c.login_at, tokens.c.expires_at)
    .add_columns(tokens.c.role)
    .join_from(tokens, users)
)


def session_of(connection: Connection, digest: str) -> Session | None:
    """What a token of this hash is, if it is known."""
    row = connection.execute(_SESSION.where(tokens.c.digest == digest)).first()
    if row is None:
        return None
    return Session(user_of(row), row.kind, row.device_id, row.login, row.login_at, row.expires_at, row.role)


def add_token(connection: Connection, digest: str, session: Session, kept: str | None, now: float) -> bool:
    """Add a token for who has given the password of which this is `kept`, or, without one, for a log-in; False if that
    is no longer so. Whoever ends log-ins holds the user's row, too: neither slips in behind the other."""
    if kept is None:
        is_good = holds(connection, session.user.id, session.login, now)
    else:
        user = select(users.c.password).where(users.c.id == session.user.id).with_for_update()
        is_good = connection.execute(user).scalar() == kept
    if not is_good:
        return False
    of_kind = (tokens.c.user_id == session.user.id) & (tokens.c.kind == session.kind)
    connection.execute(delete(tokens).where(of_kind, tokens.c.expires_at <= now))
    if connection.execute(select(func.count()).select_from(tokens).where(of_kind)).scalar_one() >= MAX_TOKENS:
        oldest = select(tokens.c.digest).where(of_kind).order_by(tokens.c.expires_at).limit(1)
        connection.execute(delete(tokens).where(tokens.c.digest.in_(oldest)))
    insert_token(connection, digest, session)
    return True


def insert_token(connection: Connection, digest: str, session: Session) -> None:
    """A token is good from now on."""
    values = session._asdict() | {"digest": digest, "user_id": session.user.id, "device_id": session.device}
    del values["user"], values["device"]
    connection.execute(insert(tokens).values(values))


def holds(connection: Connection, user: int, login: str, now: float) -> bool:
    """Whether a log-in has not ended; while the transaction lasts, nobody ends it."""
    connection.execute(select(users.c.id).where(users.c.id == user).with_for_update())
    of_login = select(tokens.c.digest).where(tokens.c.login == login, tokens.c.expires_at > now)
    return connection.execute(of_login.limit(1)).first() is not None


def end_login(connection: Connection, user: int, login: str) -> None:
    """End a log-in of this user."""
    connection.execute(select(users.c.id).where(users.c.id == user).with_for_update())
    connection.execute(delete(tokens).where(tokens.c.login == login))


def note_used(connection: Connection, minutes: dict[str, float]) -> None:
    """Programs' tokens, by their hashes, were last used then."""
    for digest, minute in minutes.items():
        connection.execute(update(api_tokens).where(api_tokens.c.digest == digest).values(last_used=minute))


def purge(connection: Connection, now: float) -> None:
    """Delete the tokens that are good no more."""
    connection.execute(delete(tokens).where(tokens.c.expires_at <= now))
