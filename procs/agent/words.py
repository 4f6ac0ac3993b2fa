"""What others say in words, as a terminal or a log may show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def plain(text: str) -> str:
    """Nothing in it moves the cursor, begins another line or hides what was said."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)


def late(within_s: float, servers: Iterable[Mapping[str, Any]]) -> str:
    """Of a peer that says where it is, and is not reached. Most often UDP is blocked, which TURN is for."""
    said = f"no connection within {within_s:g} s"
    if any("turn" in str(each.get("urls")) for each in servers):
        return said
    return f"{said}: where a firewall blocks UDP, a TURN server helps (ICE_URLS)"


def left(why: str) -> str:
    """Of a peer that has said goodbye."""
    return f"the peer has left{': ' + why if why else ''}"
