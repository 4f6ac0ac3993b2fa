"""What a device has last announced of its streams, in short: the hub keeps this of thousands of devices. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_STREAMS = 1000
MAX_NAME = 200  # characters
SNAPSHOT = "keyframe"  # how go2rtc calls who waits for a single picture


class Stream(msgspec.Struct, frozen=True):
    """One stream. `is_running`: something feeds it; `watchers`: how many took it then. Who takes a single picture, as
    our own thumbnails do, is neither a watcher nor a reason to run."""

    name: str
    is_running: bool
    watchers: int


def streams(listed: dict[str, Any]) -> tuple[Stream, ...]:
    """What go2rtc answers to GET /api/streams, whatever a device makes of it."""
    return tuple(_stream(name[:MAX_NAME], each) for name, each in list(listed.items())[:MAX_STREAMS])


def _stream(name: str, listed: object) -> Stream:
    # go2rtc tells the format of a producer that is connected; of one that is not, its address alone.
    feeds = [each for each in _all(listed, "producers") if "format_name" in each]
    consumers = _all(listed, "consumers")
    watchers = [each for each in consumers if each.get("format_name") != SNAPSHOT]
    is_running = any(watchers or not consumers or _is_pushed(each) for each in feeds)
    return Stream(name, is_running, len(watchers))


def _is_pushed(producer: dict[str, Any]) -> bool:
    """Whether it came by itself, so that it runs whoever watches: what go2rtc has fetched has an address."""
    return not str(producer.get("url") or "").partition(":")[0]


def _all(listed: object, key: str) -> list[dict[str, Any]]:
    found = listed.get(key) if isinstance(listed, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
