"""Who asks, and whether it is theirs. Every route goes through here; what is not yours looks like what is not there."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from aiohttp import hdrs, web

from procs.errors import StoreDown
from procs.hub.devices.registry import Device
from procs.hub.people.accounts import Session, User, WrongPassword, is_username
from procs.hub.people.logins import Kind
from procs.hub.people.passwords import LENGTHS
from procs.hub.people.roles import OWNER, VIEWER, Role, lesser, may_ask, suffices
from procs.hub.rates import network_of
from procs.hub.rest import refusal, too_many
from procs.hub.state import HUB, State, now
from procs.wire.scalars import Id

MAX_TOKEN = 256  # characters
SESSION_COOKIE = "planaria_session"
SAFE = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")


def address_of(request: web.Request) -> str:
    """Who counts as the sender, for rates and logs: the other end, or whom a proxy of ours names."""
    peer = request.remote or "unknown"
    forwarded = request.headers.get("X-Forwarded-For", "")
    if forwarded and peer in request.app[HUB].settings.proxies:
        peer = forwarded.rpartition(",")[2].strip()[:64] or peer  # the last is what our own proxy has added
    return network_of(peer)


def is_local(request: web.Request) -> bool:
    """Whether somebody on this machine asks, and not through a proxy that runs on it."""
    is_forwarded = any(name in request.headers for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"))
    return not is_forwarded and bool(_LOOPBACK.match(request.remote or ""))


def token_of(request: web.Request) -> str | None:
    """The access token that came with a request."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer" and 0 < len(token) <= MAX_TOKEN:
        return token.strip()
    if request.app[HUB].settings.compat:
        return request.query.get("token", "")[:MAX_TOKEN] or None
    return None


async def who_asks(request: web.Request) -> Session | None:
    """The session of whoever asks, by access or program token or by the page's cookie; None for a stranger. Raises
    HTTPUnauthorized for a token that is not good, HTTPForbidden where another site's page may be asking."""
    token = token_of(request)
    if token is None:
        return await by_cookie(request)
    if session := await session_of(request, token):
        return session
    raise refusal(web.HTTPUnauthorized, "Invalid token", WWW_Authenticate='Bearer error="invalid_token"')


async def by_cookie(request: web.Request) -> Session | None:
    """The session of the page that asks. Raises HTTPForbidden where it may be another site's."""
    given = session_cookies(request)
    if len(given) > 1:  # one of them was put there by somebody else
        request.app[HUB].counts.refuse("two session cookies", address=address_of(request), path=request.path)
        return None
    if not given:
        return None
    refuse_foreign_page(request)
    return await session_of(request, given[0], "page")


def session_cookies(request: web.Request) -> list[str]:
    """All cookies of the name that the page's has."""
    return cookies_of(request, cookie_name(request, SESSION_COOKIE))


def cookies_of(request: web.Request, name: str) -> list[str]:
    """All cookies of a name, as they were sent. aiohttp's own mapping would hide a second one."""
    pairs = (pair.strip() for sent in request.headers.getall(hdrs.COOKIE, ()) for pair in sent.split(";"))
    return [value for key, _, value in (pair.partition("=") for pair in pairs) if key == name]


def cookie_name(request: web.Request, name: str) -> str:
    """What a cookie of ours is called: by https so that it can come from this very host only, not from one beside or
    below it."""
    return f"__Host-{name}" if is_https(request) else name


def is_https(request: web.Request) -> bool:
    """Whether the browser that asks sees https: of us, or of a proxy in front."""
    settings = request.app[HUB].settings
    if request.secure or settings.insecure:
        return True
    return request.remote in settings.proxies and request.headers.get("X-Forwarded-Proto") == "https"


async def signed_in(request: web.Request) -> Session:
    """As `who_asks`, of somebody with an account. Raises HTTPUnauthorized, HTTPForbidden."""
    if session := await who_asks(request):
        return session
    raise refusal(web.HTTPUnauthorized, "Not authenticated", WWW_Authenticate="Bearer")


async def person(request: web.Request) -> Session:
    """As `signed_in`, of somebody who has logged in: not a program. Raises HTTPUnauthorized, HTTPForbidden."""
    session = await signed_in(request)
    if session.kind == "program":
        request.app[HUB].counts.refuse("account managed by a program", path=request.path, user=session.user.username)
        raise refusal(web.HTTPForbidden, "A program's token can't manage accounts and tokens: log in")
    return session


async def admin(request: web.Request, role: Role = VIEWER) -> Session:
    """As `signed_in`, of an admin, whose token allows this much. Raises HTTPUnauthorized, HTTPForbidden."""
    session = await signed_in(request)
    if not session.user.is_admin:
        raise refusal(web.HTTPForbidden, "Only an admin may do this")
    refuse_lesser(request, session.role, role)
    return session


async def session_of(request: web.Request, token: str, *kinds: Kind) -> Session | None:
    """Whose token this is, if it is good and of such a kind; one that is not is counted. Not limited: 256 bits can't be
    guessed, and others may be at the same address."""
    hub = request.app[HUB]
    session = await hub.accounts.session(token, *kinds)
    if session is None:
        hub.counts.refuse("invalid or expired token", address=address_of(request), path=request.path)
    return session


def is_id(text: str) -> bool:
    """Whether a device can be called so."""
    try:
        msgspec.convert(text, Id)
    except msgspec.ValidationError:
        return False
    return True


class Allowed(NamedTuple):
    """A device, and what the asker may do with it."""

    device: Device
    role: Role


async def device_of(hub: State, user: User, role: Role, device_id: str) -> Allowed:
    """A device that is the user's, or shared with them, by a credential that allows `role` at most. Raises
    HTTPNotFound, alike for somebody else's and nobody's."""
    device = await hub.registry.find(device_id) if is_id(device_id) else None
    found = await hub.registry.role(device, user.id) if device else None
    if device is None or found is None:
        raise refusal(web.HTTPNotFound, "Device not found")
    return Allowed(device, lesser(found, role))


async def asked_for(request: web.Request, role: Role = VIEWER) -> Allowed:
    """The device in the path, for somebody who may do with it what needs this role. Raises HTTPUnauthorized,
    HTTPForbidden, HTTPNotFound."""
    session = await signed_in(request)
    allowed = await device_of(request.app[HUB], session.user, session.role, request.match_info["id"])
    refuse_lesser(request, allowed.role, role)
    return allowed


def refuse_lesser(request: web.Request, role: Role, needed: Role) -> None:
    """Raise HTTPForbidden for who has less than the role that is needed."""
    if not suffices(role, needed):
        request.app[HUB].counts.refuse("viewer wants more than to look", path=request.path)
        raise refusal(web.HTTPForbidden, "You may look, and nothing more")


def refuse_change(request: web.Request, role: Role, path: str) -> None:
    """Raise HTTPForbidden for what must not go to the device itself; `path` as roles.may_ask has it."""
    refuse_lesser(request, role, VIEWER if may_ask(role, request.method, path) else OWNER)


class Asker(NamedTuple):
    """Who asks for something of a device, by what, and what they may do with it at most."""

    user: User
    login: str  # "" for a password
    is_ambient: bool  # whether a browser sends the credential by itself, whoever made it ask
    role: Role


async def viewer_of_device(request: web.Request, device_id: str) -> Asker:
    """Who asks for something of a device that is theirs or shared with them: by access or program token, session
    cookie or HTTP Basic.

    Raises HTTPUnauthorized, HTTPNotFound, HTTPTooManyRequests, and HTTPForbidden where another site's page may be
    asking through somebody's browser.
    """
    asker = await _asker(request, device_id)
    if asker is None:
        headers = {"WWW_Authenticate": _challenge(device_id)} if _may_be_asked(request) else {}
        raise refusal(web.HTTPUnauthorized, "Not authenticated", **headers)
    if asker.is_ambient:
        refuse_foreign_page(request)
    _, role = await device_of(request.app[HUB], asker.user, asker.role, device_id)
    return asker._replace(role=role)


async def _asker(request: web.Request, device_id: str) -> Asker | None:
    if token := token_of(request):
        session = await session_of(request, token)
        return session and Asker(session.user, session.login, False, session.role)
    if session := await by_cookie(request):
        return Asker(session.user, session.login, True, session.role)
    if given := _basic(request):
        return Asker(await _by_password(request, *given), "", True, OWNER)
    return None


def _basic(request: web.Request) -> tuple[str, str] | None:
    """What a program gives unasked, as `curl -u` does; a browser would send it whoever made it ask."""
    if "Sec-Fetch-Mode" in request.headers:
        return None
    scheme, _, coded = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        username, colon, password = base64.b64decode(coded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    is_possible = colon and is_username(username) and len(password) < LENGTHS.stop
    return (username, password) if is_possible else None


async def _by_password(request: web.Request, username: str, password: str) -> User:
    hub = request.app[HUB]
    if user := hub.accounts.remembered(username, password):
        return user
    async with GuardedLogin(hub, address_of(request), username):
        return await hub.accounts.checked(username, password)


class GuardedLogin:
    """Around a check of a password: counts it as an attempt, which the right password gives back. A wrong one raises
    HTTPUnauthorized, too many HTTPTooManyRequests."""

    def __init__(self, hub: State, address: str, username: str) -> None:
        self._hub, self._address, self._username = hub, address, username
        pair = f"{address} {username[:64]}"
        rates = hub.rates
        self._buckets = ((rates.login_from, address), (rates.login_as, pair), (rates.login_name, username[:64]))

    async def __aenter__(self) -> None:
        for bucket, key in self._buckets:
            if wait_s := bucket.wait_s(key, now()):
                self._hub.counts.refuse("too many attempts to log in", address=self._address, username=self._username)
                raise too_many(wait_s)
        for bucket, key in self._buckets:
            bucket.take(key, now())

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, WrongPassword):
            self._hub.counts.refuse("wrong password", address=self._address, username=self._username)
            raise refusal(web.HTTPUnauthorized, "Incorrect username or password") from None
        if error is None or isinstance(error, StoreDown):  # not for who left: the work was done all the same
            for bucket, key in self._buckets:
                bucket.give_back(key, now())


def _challenge(device_id: str) -> str:
    shown = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in device_id)
    return f'Basic realm="planaria device {shown}", charset="UTF-8"'


def _may_be_asked(request: web.Request) -> bool:
    """Whether asking for a password makes sense: for a program, not for a page."""
    return request.method == hdrs.METH_GET and "Sec-Fetch-Mode" not in request.headers and not _is_upgrade(request)


def _is_upgrade(request: web.Request) -> bool:
    return hdrs.UPGRADE in request.headers


def refuse_foreign_page(request: web.Request) -> None:
    """Raise HTTPForbidden where another site's page may have made a browser ask, by what it sends by itself."""
    if not _is_own_page(request):
        request.app[HUB].counts.refuse("request of another site's page", path=request.path)
        raise refusal(web.HTTPForbidden, "This request comes from another site's page")


def _is_own_page(request: web.Request) -> bool:
    """Whether what a browser asks for by itself can only come from a page of this hub."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if request.method in SAFE and not _is_upgrade(request):
        return site in ("none", "same-origin") or request.headers.get("Sec-Fetch-Mode") == "navigate"
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return site in ("none", "same-origin")
    parts = urlsplit(origin)
    return parts.netloc == request.host and parts.scheme == ("https" if is_https(request) else "http")
