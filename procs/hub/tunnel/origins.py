"""An origin of its own for each device's pages, LABEL.SUFFIX, so that what they run can't act as anybody at the hub:
what they are called, and how a browser that is signed in at the hub gets there."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from typing import Annotated
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import hdrs, web

from procs.hub.answers import Opened
from procs.hub.options import LOCAL
from procs.hub.people import access
from procs.hub.people.accounts import Session
from procs.hub.rest import answer, body, refusal
from procs.hub.state import HUB, now

ENTER = "/.planaria/enter"  # below a device's own origin; all else there is the device's
COOKIE = "planaria_view"
_LABEL = re.compile(r"d[a-z2-7]{24}")
_HERE = re.compile(r"localhost|127(?:\.[0-9]+){3}|\[::1\]")
_HOST = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.I)
# On the origin where it stands, whatever a browser makes of it: no //, no backslash, nothing but printable ASCII.
_PATH = r"^/(?![/\\])[!-\[\]-~]*\Z"
MAX_PATH = 8 * 1024


class Opening(msgspec.Struct):
    """POST /api/devices/{id}/open."""

    path: Annotated[str, msgspec.Meta(max_length=MAX_PATH, pattern=_PATH)] = "/"


@functools.lru_cache(4096)
def label_of(device_id: str) -> str:
    """What the first part of the host name is of a device's own origin."""
    return "d" + base64.b32encode(hashlib.sha256(device_id.encode()).digest()).decode().lower()[:24]


def label_asked(request: web.Request) -> str:
    """The label whose origin is asked; "" for the hub's own."""
    suffix = request.app[HUB].settings.view_suffix
    name = request.headers.get(hdrs.HOST, "").partition(":")[0].rstrip(".").lower()
    if not suffix or not name.endswith(f".{suffix}"):
        return ""
    # What is below a device's own name could be given cookies by that device's pages, so it is not the hub's either.
    label = name.removesuffix(f".{suffix}").rpartition(".")[2]
    return label if _LABEL.fullmatch(label) else ""


def is_path(text: str) -> bool:
    """Whether it leads to no other origin, sent as it is."""
    return len(text) <= MAX_PATH and bool(re.match(_PATH, text))


def origin_of(request: web.Request, device_id: str) -> str:
    """The device's own origin, as whoever asks the hub can reach it; "" where there are no own origins."""
    settings = request.app[HUB].settings
    host = _HOST.fullmatch(request.headers.get(hdrs.HOST, ""))
    if not settings.view_suffix or not host:
        return ""
    if settings.view_suffix == LOCAL and not _HERE.fullmatch(host[1].lower()):
        return ""  # a proxy in front has led somebody here from elsewhere
    scheme = "https" if access.is_https(request) else "http"
    return f"{scheme}://{label_of(device_id)}.{settings.view_suffix}{host[2] or ''}"


def _entry(request: web.Request, session: Session, device_id: str, path: str) -> str:
    """An address that lets the browser which opens it in, once; "" where there are no own origins."""
    origin = origin_of(request, device_id)
    if not origin:
        return ""
    ticket = request.app[HUB].entries.grant(device_id, session, now())
    return f"{origin}{ENTER}?{urlencode({'ticket': ticket, 'to': path})}"


def is_opened(request: web.Request) -> bool:
    """Whether a browser shows the answer as a page, or as a part of one."""
    is_navigation = request.headers.get("Sec-Fetch-Mode") == "navigate"
    return is_navigation and request.method == hdrs.METH_GET and hdrs.UPGRADE not in request.headers


async def led_there(request: web.Request, device_id: str, target: str) -> web.Response | None:
    """Where a browser that opens something of a device at the hub is sent: to the device's own origin, or to sign in.
    None where there are no own origins."""
    try:
        session = await access.signed_in(request)
    except web.HTTPUnauthorized:
        return see_other(f"/#/devices/{quote(device_id, safe='')}")
    device, _ = await access.asked_for(request)
    url = _entry(request, session, device.device_id, target) if is_path(target) else ""
    return see_other(url) if url else None


def see_other(url: str) -> web.Response:
    """303, with the address as it is; nobody may keep it."""
    return web.Response(status=303, headers={"Location": url, "Cache-Control": "no-store"})


async def post_open(request: web.Request) -> web.Response:
    """POST /api/devices/{id}/open: an address of the device's own origin, good once and for half a minute, which lets
    the browser that opens it look at this one device, and nothing else."""
    session = await access.signed_in(request)
    device, _ = await access.asked_for(request)
    path = (await body(request, Opening)).path
    if url := _entry(request, session, device.device_id, path):
        return answer(Opened(url))
    reason = "This hub has no origins for devices' own pages: PLANARIA_HUB_VIEWS=HOST makes LABEL.HOST of each"
    raise refusal(web.HTTPConflict, reason)
