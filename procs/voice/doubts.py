"""What of devices.json can be done and is hardly meant, one line each. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from procs.voice import voices
from procs.voice.config import Device


def of(devices: Iterable[Device]) -> list[str]:
    """Of all that are called."""
    called = [each for each in devices if each.enabled]
    return [*_shared(called), *(found for each in called if (found := _accent(each)))]


def _shared(devices: Iterable[Device]) -> list[str]:
    first: dict[tuple[str, int], str] = {}
    found = []
    for its in devices:
        other = first.setdefault((its.host.lower(), its.port), its.name)
        if other != its.name:
            where = f"{its.host}, port {its.port}"
            found.append(
                f'device "{its.name}": device "{other}" is at {where} too: while one talks there, the other waits'
            )
    return found


def _accent(its: Device) -> str:
    language = json.loads(its.instructions).get("language") or ""
    if not (language.startswith("fr") and voices.is_english(its.voice)):
        return ""
    french = ", ".join(each.name for each in voices.known() if not voices.is_english(each.name))
    return f'device "{its.name}": an English voice ({its.voice}) is to speak French; French are {french}, espeak:fr'
