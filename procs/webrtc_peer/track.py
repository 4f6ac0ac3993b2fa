"""The pictures, or the sound, that wait for one sender: bounded, and given out as RTP payloads."""

from __future__ import annotations

import functools
from collections import deque
from typing import NamedTuple

from procs.media import packetizer, vp8
from procs.messages.watch import Unit

PAYLOAD = 1200  # bytes; with all headers, a relay's too, it passes whatever a path is made of
UNITS_MAX = 256
BYTES_MAX = 8 << 20


class Next(NamedTuple):
    """One unit as RTP payloads, and its time in ticks of the codec."""

    payloads: tuple[bytes, ...]
    ticks: int


class Track:
    """What waits to be sent, of one codec with so many ticks a second. `dropped` counts what was left out because the
    sender was too slow."""

    def __init__(self, kind: str, codec: str, clock: int) -> None:
        self.kind, self._codec, self._clock = kind, codec, clock
        self._queue: deque[tuple[Unit, bytes]] = deque()
        self._bytes = 0
        self._needs_keyframe = kind == "video"
        self.units = self.dropped = 0

    def push(self, unit: Unit, data: bytes) -> bool:
        """Take the next one. False when it, or what waited, was left out: a keyframe is needed."""
        if self._bytes + len(data) > BYTES_MAX or len(self._queue) >= UNITS_MAX:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._bytes, self._needs_keyframe = 0, self.kind == "video"
        if self._needs_keyframe and not unit.is_keyframe:
            self.dropped += 1
            return False
        self._needs_keyframe = False
        if unit.kind == "audio" and len(data) > PAYLOAD:  # nothing that is sound is so long
            self.dropped += 1
            return True
        self._queue.append((unit, data))
        self._bytes += len(data)
        return True

    def next(self) -> Next | None:
        """The unit of this codec that has waited longest; None when none waits. Raises Refused for what can't be
        sent."""
        while self._queue:
            unit, data = self._queue.popleft()
            self._bytes -= len(data)
            if unit.codec != self._codec:
                continue  # the stream has changed its codec since we answered
            self.units += 1
            ticks = (unit.time_us * self._clock + 500_000) // 1_000_000
            return Next(_payloads(unit.codec, unit.number, data), ticks)
        return None


@functools.lru_cache(maxsize=8)
def _payloads(codec: str, number: int, data: bytes) -> tuple[bytes, ...]:
    """Once for all viewers of a stream, who get it one after the other."""
    if codec == "h264":
        return tuple(packetizer.payloads(data, PAYLOAD))
    return tuple(vp8.payloads(data, PAYLOAD, number)) if codec == "vp8" else (data,)
