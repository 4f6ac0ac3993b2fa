"""What go2rtc has, as the hub may know it. Pure."""

from __future__ import annotations

from typing import Any

# The other fields of go2rtc's are counters, addresses of viewers, and sources with their logins.
_PRODUCER = ("format_name", "protocol", "medias")
_CONSUMER = ("format_name", "protocol")
MAX_STREAMS = 1000


def announced(listed: object) -> dict[str, Any]:
    """GET /api/streams of go2rtc without what is nobody's business: of a source there is only its kind."""
    if not isinstance(listed, dict):
        return {}
    return {
        str(name)[:200]: {
            "producers": _all(each, "producers", _producer),
            "consumers": _all(each, "consumers", _consumer),
        }
        for name, each in list(listed.items())[:MAX_STREAMS]
    }


def substance(streams: dict[str, Any]) -> object:
    """What makes two announcements different: names, and what feeds them; not who watches."""
    return {name: each["producers"] for name, each in streams.items()}


def _all(stream: object, key: str, pick: Any) -> list[Any] | None:
    found = stream.get(key) if isinstance(stream, dict) else None
    return [pick(each) for each in found[:100] if isinstance(each, dict)] if isinstance(found, list) else None


def _producer(each: dict[str, Any]) -> dict[str, Any]:
    kind = str(each.get("url") or "").partition(":")[0]
    return {"url": f"{kind[:20]}:..."} | {key: each[key] for key in _PRODUCER if key in each}


def _consumer(each: dict[str, Any]) -> dict[str, Any]:
    return {key: each[key] for key in _CONSUMER if key in each}
