"""Headers that pass, in both directions, and those that stay where they are. Pure: pairs in, pairs out.

What holds at both ends of the tunnel is in procs/wire/fields.py; this is what only the device's end knows: the upstream
learns nothing of the viewer's login or address, and no answer acts on the hub's origin as a whole.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from procs.errors import Refused
from procs.proxy.policy import Upstream
from procs.wire import fields

Pairs = Sequence[tuple[str, str]]

_STAY_OUT = frozenset({
    "host", "origin", "cookie", "authorization", "forwarded", "content-length", "via", "x-real-ip",
    "x-original-url", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override",
    "sec-websocket-protocol",
})  # fmt: skip
_STAY_IN = fields.OF_THE_ORIGIN | {"content-length"}
_SUBPROTOCOL = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


def body_length(method: str, headers: Pairs) -> int | None:
    """How long a request's body is, of headers that fields.request_fields has let through; None where only its end
    will tell."""
    for name, value in headers:
        if name.lower() == "content-length":
            return int(value)
    return None if method in ("POST", "PUT", "PATCH") else 0


def onward(upstream: Upstream, headers: Pairs) -> list[tuple[str, str]]:
    """What of such headers the upstream gets. Host is the upstream's own, Origin none: go2rtc would refuse another."""
    passed = [("Host", upstream.authority)]
    if upstream.login:
        passed.append(("Authorization", "Basic " + base64.b64encode(upstream.login.encode()).decode()))
    for pair in headers:
        name = pair[0].lower()
        if name not in _STAY_OUT and not name.startswith("x-forwarded-"):
            passed.append(pair)
    return passed


def subprotocols(headers: Pairs) -> list[str]:
    """What a WebSocket's viewer offers to speak."""
    offered = [value for name, value in headers if name.lower() == "sec-websocket-protocol"]
    words = [word.strip() for value in offered for word in value.split(",")]
    if any(not _SUBPROTOCOL.fullmatch(word) for word in words):
        raise Refused("Sec-WebSocket-Protocol holds what is no name")
    return words


def back(upstream: Upstream, target: str, headers: Pairs) -> list[tuple[str, str]]:
    """What of an answer's headers the hub gets; `target` is what the upstream was asked for. Content-Length is left
    to whoever knows how long the body is that goes on. Raises Refused for what must not be sent."""
    passed = []
    for pair in fields.response_fields(headers):
        name = pair[0].lower()
        if name in ("location", "content-location"):
            moved = relative(upstream, target, pair[1])
            if moved is not None:
                passed.append((pair[0], moved))
        elif name not in _STAY_IN:
            passed.append(pair)
    return passed


def relative(upstream: Upstream, target: str, location: str) -> str | None:
    """A Location as a reference relative to the request, so that it holds below whatever the hub puts before it.
    Addresses of others stay as they are; None for what is no address of a page."""
    try:
        parts = urlsplit(location)
        is_own = not parts.netloc or (parts.hostname, parts.port or 80) == (upstream.host, upstream.port)
    except ValueError:
        return None
    if parts.scheme not in ("", "http", "https"):
        return None
    if not is_own:
        return location
    if not parts.netloc and not parts.path.startswith("/"):
        return location
    path = _step(target.partition("?")[0], parts.path or "/")
    return path + (f"?{parts.query}" if parts.query else "") + (f"#{parts.fragment}" if parts.fragment else "")


def _step(here: str, there: str) -> str:
    """The path `there` as seen from `here`: ../ as often as needed, then down."""
    folders, goal = here.split("/")[1:-1], there.split("/")[1:]
    common = 0
    while common < min(len(folders), len(goal) - 1) and folders[common] == goal[common]:
        common += 1
    down = "/".join(goal[common:])
    up = "../" * (len(folders) - common)
    # ./ lest an empty reference mean the request itself, or a colon in the first segment a scheme.
    return up + down if up else "./" + down
