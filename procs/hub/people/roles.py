"""What somebody may do with a device: `owner` everything but giving it away, `viewer` look. Pure."""

from __future__ import annotations

from typing import Literal

Role = Literal["owner", "viewer"]
OWNER: Role = "owner"
VIEWER: Role = "viewer"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})  # a WebSocket begins as GET
_WATCHING = frozenset({"POST", "DELETE"})  # of WEBRTC: a session of watching is begun and ended so
_WEBRTC = "/api/webrtc"


def lesser(one: Role, other: Role) -> Role:
    """What both allow."""
    return OWNER if one == other == OWNER else VIEWER


def suffices(role: Role, needed: Role) -> bool:
    """Whether who has this role may do what needs that one."""
    return needed in (VIEWER, role)


def may_ask(role: Role, method: str, path: str) -> bool:
    """Whether a request may go to the device itself. `path` as it was sent, undecoded, without its query: what is
    written in another way than the one address is not that address."""
    return role == OWNER or method in _READING or (method in _WATCHING and path == _WEBRTC)
