"""The pictures since the last keyframe, for a reader who comes later: all at once, and in the present. Pure.

With their own times a player would show them at leisure and stay that far behind, and a viewer who was there before
(go2rtc keeps its viewers when its reader is started anew) would see time run back.
"""

from __future__ import annotations

from collections.abc import Sequence

from procs.media import tspackets
from procs.media.tspackets import PACKET


def hurried(units: Sequence[bytes]) -> list[bytes]:
    """Pictures in MPEG-TS, a tick apart: after the newest one's own time, which a former reader may have been given
    already, and before the next picture's; where more are cached than a period has ticks, up to the newest one's time.

    [] for pictures that are shown in another order than decoded: they can't be brought together without a mix-up.
    """
    newest = next((time for unit in reversed(units) if (time := _time(unit)) is not None), None)
    if newest is None:
        return list(units)
    if any(_is_reordered(unit) for unit in units):
        return []
    before = _time(units[-2]) if len(units) > 1 else None
    fits = before is None or len(units) < tspackets.signed(newest - before)
    first = newest + 1 if fits else newest - (len(units) - 1)
    return [_moved(unit, first + i) for i, unit in enumerate(units)]


def _header(unit: bytes | bytearray) -> int | None:
    """Where the PES header with a picture's times is, if it has any."""
    for at in range(0, len(unit), PACKET):
        packet = unit[at : at + PACKET]
        start = tspackets.payload_at(packet)
        if tspackets.begins(bytes(packet)) and packet[start : start + 3] == b"\0\0\1" and start + 19 <= PACKET:
            return at + start if packet[start + 7] >> 6 >= 2 else None
    return None


def _time(unit: bytes | bytearray) -> int | None:
    """A picture's decoding time in ticks."""
    at = _header(unit)
    if at is None:
        return None
    field = at + 14 if unit[at + 7] >> 6 == 3 else at + 9
    return tspackets.get_time(unit[field : field + 5])


def _is_reordered(unit: bytes) -> bool:
    """Whether a picture is shown later than it is decoded."""
    at = _header(unit)
    return at is not None and unit[at + 7] >> 6 == 3 and unit[at + 10 : at + 14] != unit[at + 15 : at + 19]


def _moved(unit: bytes, time: int) -> bytes:
    """A picture that is to be decoded, and shown, at `time`."""
    at, own = _header(unit), _time(unit)
    if at is None or own is None:
        return unit
    moved, shift, flags = bytearray(unit), time - own, unit[at + 7] >> 6
    for field, prefix in ((at + 9, flags), (at + 14, 1))[: flags - 1]:
        moved[field : field + 5] = tspackets.put_time(prefix, tspackets.get_time(unit[field : field + 5]) + shift)
    for packet in range(0, len(moved), PACKET):
        if tspackets.has_pcr(moved, packet):
            tspackets.shift_pcr(moved, packet, shift)
    return bytes(moved)
