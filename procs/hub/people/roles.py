"""What somebody may do with a device: `owner` everything but giving it away, `viewer` look. Pure."""

from __future__ import annotations

from typing import Literal
from urllib.parse import unquote

import msgspec

Role = Literal["owner", "viewer"]
OWNER: Role = "owner"
VIEWER: Role = "viewer"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})  # a WebSocket begins as GET
# go2rtc's own WebSocket, and what may be begun on it: its WebRTC takes sound of whoever offers any, for loudspeakers.
_GO2RTC_WS = "/api/ws"
_SHOWN = frozenset({b'"mse"', b'"mp4"', b'"hls"', b'"mjpeg"'})


def lesser(one: Role, other: Role) -> Role:
    """What both allow."""
    return OWNER if one == other == OWNER else VIEWER


def suffices(role: Role, needed: Role) -> bool:
    """Whether who has this role may do what needs that one."""
    return needed in (VIEWER, role)


def may_ask(role: Role, method: str, path: str) -> bool:
    """Whether a request may go to the device itself. `path` as it was sent, undecoded, without its query."""
    return role == OWNER or method in _READING


def may_say(role: Role, path: str, message: str | bytes) -> bool:
    """Whether a message may go to a WebSocket of the device itself; `path` as above."""
    if role == OWNER or unquote(path) != _GO2RTC_WS:
        return True
    try:
        said = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
    kinds = [bytes(value) for key, value in said.items() if key.casefold() == "type"]  # Go takes any case
    return len(kinds) == 1 and kinds[0] in _SHOWN
