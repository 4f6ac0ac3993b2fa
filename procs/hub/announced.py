"""What a device has last announced of its streams, in short: the hub keeps this of thousands of devices. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_STREAMS = 1000
MAX_NAME = 200  # characters


class Stream(msgspec.Struct, frozen=True):
    """One stream. `is_running`: something feeds it; `watchers`: how many took it then."""

    name: str
    is_running: bool
    watchers: int


def streams(listed: dict[str, Any]) -> tuple[Stream, ...]:
    """What go2rtc answers to GET /api/streams, whatever a device makes of it."""
    return tuple(_stream(name[:MAX_NAME], each) for name, each in list(listed.items())[:MAX_STREAMS])


def _stream(name: str, listed: object) -> Stream:
    # go2rtc tells the format of a producer that is connected; of one that is not, its address alone.
    is_running = any("format_name" in each for each in _all(listed, "producers"))
    return Stream(name, is_running, len(_all(listed, "consumers")))


def _all(listed: object, key: str) -> list[dict[str, Any]]:
    found = listed.get(key) if isinstance(listed, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
