"""People: their accounts, passwords and access tokens, in the store and for two seconds in memory."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable

from sqlalchemy import Connection, Row, delete, exc, insert, select, update

from procs.errors import Refused
from procs.hub.people import logins
from procs.hub.people.logins import SENT, Kind, digest_of, new_login, new_token, user_of
from procs.hub.people.logins import Session as Session
from procs.hub.people.logins import User as User
from procs.hub.people.passwords import Passwords
from procs.hub.store.models import tokens, users
from procs.store import Store

CACHED_S = 2.0
BASIC_CACHED_S = 60.0  # of a password that was right: scrypt for each picture of a page would be too slow
MAX_CACHED = 10_000
MAX_LOGIN_S = 30 * 86_400.0  # for so long a log-in can be renewed
VIEW_TTL_S = 12 * 3600.0
PAGE_TTL_S = 30 * 86_400.0

USERNAME = r"[^:\x00-\x20\x7f\ud800-\udfff](?:[^:\x00-\x1f\x7f\ud800-\udfff]{0,62}[^:\x00-\x20\x7f\ud800-\udfff])?"
_USERNAME = re.compile(USERNAME)


def is_username(text: str) -> bool:
    """Whether somebody can be called so: 1 to 64 characters, no colon (HTTP Basic has it after the name)."""
    return bool(_USERNAME.fullmatch(text))


class WrongPassword(Exception):
    """No such user, or not the password."""


class Taken(Exception):
    """Somebody has this name or address."""


class Accounts:
    """Who is who. `clock` is time.time."""

    def __init__(self, store: Store, token_ttl_s: float, clock: Callable[[], float] = time.time) -> None:
        self._store, self._ttl_s, self._clock = store, token_ttl_s, clock
        self._passwords = Passwords()
        self._sessions: dict[str, tuple[Session, float]] = {}
        self._basic: dict[bytes, tuple[User, float]] = {}
        self._ends = 0  # of log-ins: what was looked up before one may be true no more
        self._used: dict[str, float] = {}  # digests of programs' tokens -> the last minute in which they were used
        self._unwritten: dict[str, float] = {}  # of these, what the store does not know
        self._key = secrets.token_bytes(32)  # of this process: what it remembers of passwords is of no use elsewhere

    async def session(self, token: str, *kinds: Kind) -> Session | None:
        """Whose token this is, if it is good and of one of these kinds; without any, of `SENT`. Raises StoreDown."""
        digest, now = digest_of(token), self._clock()
        found, until = self._sessions.get(digest, (None, 0.0))
        if found is None or until <= now:
            ends = -1
            while ends != self._ends:  # else it may have ended while we asked
                ends = self._ends
                found = await self._store.read(logins.session_of, digest)
            if found is None:
                self._sessions.pop(digest, None)
                return None
            self._remember(digest, found, now)
        if found.kind not in (kinds or SENT) or now >= found.expires_at:
            return None
        if found.kind == "program":
            self._note_use(digest, now)
        return found

    def _note_use(self, digest: str, now: float) -> None:
        minute = now - now % 60
        if self._used.get(digest) != minute:
            if len(self._used) >= MAX_CACHED:
                self._used.clear()
            self._used[digest] = self._unwritten[digest] = minute

    async def write_used(self) -> None:
        """Have the store know when programs' tokens were last used."""
        if unwritten := self._unwritten:
            self._unwritten = {}
            await self._store.run(logins.note_used, unwritten)

    def _remember(self, digest: str, found: Session, now: float) -> None:
        if len(self._sessions) >= MAX_CACHED:
            self._sessions.clear()
        self._sessions[digest] = found, now + CACHED_S

    async def register(self, username: str, email: str, password: str) -> tuple[User, str]:
        """Make an account and log it in. Raises Taken, StoreDown."""
        kept = await self._passwords.hashed(password)
        user = await self._store.run(add_user, username, email, kept, self._clock())
        return user, await self._log_in(user, kept)

    async def log_in(self, username: str, password: str, kind: Kind = "access") -> tuple[User, str]:
        """A token of a new log-in. Raises WrongPassword, StoreDown."""
        user, kept = await self._checked(username, password)
        return user, await self._log_in(user, kept, kind)

    async def _checked(self, username: str, password: str) -> tuple[User, str]:
        row = await self._store.read(_user_by_name, username)
        if not await self._passwords.matches(password, row.password if row else None) or row is None:
            raise WrongPassword
        return user_of(row), row.password

    async def _log_in(self, user: User, kept: str, kind: Kind = "access") -> str:
        """A token for who has given the password that is kept as this. Raises WrongPassword if it has changed since."""
        now = self._clock()
        ttl_s = PAGE_TTL_S if kind == "page" else self._ttl_s
        session = Session(user, kind, None, new_login(), now, now + ttl_s)
        if token := await self._new_token(session, kept):
            return token
        raise WrongPassword

    async def renew(self, session: Session) -> str:
        """A token for the time after this one, which stays good for its own. Raises Refused when the log-in is old, or
        has ended."""
        now = self._clock()
        if now - session.login_at > MAX_LOGIN_S:
            raise Refused("this log-in is too old to be renewed: log in again")
        return await self._of_login(session._replace(kind="access", device=None, expires_at=now + self._ttl_s))

    async def open_view(self, session: Session, device: int) -> str:
        """A token that is good for looking at one device. Raises Refused when the log-in has ended."""
        return await self._of_login(session._replace(kind="view", device=device, expires_at=self._clock() + VIEW_TTL_S))

    async def _of_login(self, session: Session) -> str:
        if token := await self._new_token(session, None):
            return token
        raise Refused("this log-in has ended: log in again")

    async def _new_token(self, session: Session, kept: str | None) -> str:
        token = new_token()
        is_added = await self._store.run(logins.add_token, digest_of(token), session, kept, self._clock())
        return token if is_added else ""

    async def log_out(self, session: Session) -> None:
        """End a log-in: all that was renewed or opened from it is good for nothing now."""
        await self._store.run(logins.end_login, session.user.id, session.login)
        self.forget_login(session.login)

    async def change_password(self, user: User, old: str, new: str, kind: Kind = "access") -> str:
        """Set another password; every token of the user ends, and a new one is returned. Raises WrongPassword."""
        await self._checked(user.username, old)
        kept = await self.hashed(new)
        await self._store.run(set_password, user.id, kept)
        self.forget_user(user.id)
        return await self._log_in(user, kept, kind)

    async def hashed(self, password: str) -> str:
        """What to keep of a password. Raises StoreDown when too many wait."""
        return await self._passwords.hashed(password)

    def forget_login(self, login: str) -> None:
        """What is remembered of a log-in is not true any more."""
        self._ends += 1
        self._sessions = {d: kept for d, kept in self._sessions.items() if kept[0].login != login}

    def forget_user(self, user: int) -> None:
        """What is remembered of a user is not true any more."""
        self._ends += 1
        self._sessions = {d: kept for d, kept in self._sessions.items() if kept[0].user.id != user}
        self._basic = {d: kept for d, kept in self._basic.items() if kept[0].id != user}

    def remembered(self, username: str, password: str) -> User | None:
        """The user, if this password was right within the last minute."""
        user, until = self._basic.get(self._basic_key(username, password), (None, 0.0))
        return user if self._clock() < until else None

    async def checked(self, username: str, password: str) -> User:
        """The user, if this is the password. Raises WrongPassword, StoreDown."""
        ends = self._ends
        user, _ = await self._checked(username, password)
        if len(self._basic) >= MAX_CACHED:
            self._basic.clear()
        if ends == self._ends:
            self._basic[self._basic_key(username, password)] = user, self._clock() + BASIC_CACHED_S
        return user

    def _basic_key(self, username: str, password: str) -> bytes:
        said = f"{len(username)}:{username}{password}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, said, "sha256")

    async def purge(self) -> None:
        """Delete the tokens that are good no more."""
        await self._store.run(logins.purge, self._clock())


def _user_by_name(connection: Connection, username: str) -> Row[tuple[int, str, str | None, str, bool, float]] | None:
    return connection.execute(select(users).where(users.c.username == username)).first()


def add_user(
    connection: Connection, username: str, email: str, kept: str, now: float, *, is_admin: bool = False
) -> User:
    """Work for the store: make an account. Raises Taken."""
    taken = users.c.username == username
    if email:  # several may have none
        taken = taken | (users.c.email == email)
    if connection.execute(select(users.c.id).where(taken)).first():
        raise Taken
    values = {"username": username, "email": email or None, "password": kept, "is_admin": is_admin, "created_at": now}
    try:
        key = connection.execute(insert(users).values(values)).inserted_primary_key
    except exc.IntegrityError:  # by another, since we looked
        raise Taken from None
    assert key is not None
    return User(key[0], username, email, is_admin)


def has_users(connection: Connection) -> bool:
    """Work for the store: whether there is any account."""
    return connection.execute(select(users.c.id).limit(1)).first() is not None


def set_password(connection: Connection, user: int, kept: str) -> None:
    """Work for the store: keep another password, and end every token of the user."""
    connection.execute(update(users).where(users.c.id == user).values(password=kept))
    connection.execute(delete(tokens).where(tokens.c.user_id == user))
