"""RTP packets of one stream to numbered units on a clock that never jumps back, across all reconnects. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from procs.errors import Refused
from procs.media import aac, depacketizer
from procs.messages.watch import Unit
from procs.webrtc_peer.codecs import PASSED
from procs.webrtc_peer.rtsp import Track

JUMP_US = 1_000_000  # RTP time and the wall's may part by this; then the source has begun a new count
OnUnit = Callable[[str, Unit, bytes], None]


class Timeline:
    """RTP times of one kind to microseconds that grow, begin at the machine's clock, and follow it within JUMP_US."""

    def __init__(self) -> None:
        self._last_us = 0
        self._rtp: int | None = None
        self._start_us = self._ticks = 0
        self._clock = 1

    def begin(self, clock: int) -> None:
        """The count starts anew, with so many ticks a second."""
        self._rtp, self._clock = None, clock

    def time_us(self, rtp: int, now_us: int) -> int:
        """Of a unit with this RTP time that is here now."""
        if self._rtp is not None:
            self._ticks += ((rtp - self._rtp + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
            found = self._start_us + self._ticks * 1_000_000 // self._clock
        if self._rtp is None or found < self._last_us or abs(found - now_us) > JUMP_US:
            self._start_us, self._ticks = max(now_us, self._last_us + 1000), 0
            found = self._start_us
        self._rtp, self._last_us = rtp, found
        return found


class Sorter:
    """Of one stream. `pictures` counts those given out, `lost` packets that never came, `refused` what was no RTP."""

    def __init__(self, stream: str, on_unit: OnUnit, now_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000):
        self._stream, self._on_unit, self._now_us = stream, on_unit, now_us
        self._timelines = {"video": Timeline(), "audio": Timeline()}
        self._numbers = {"video": 0, "audio": 0}
        self._pictures_of: depacketizer.H264 | None = None
        self._frames_of: aac.Framer | None = None
        self._tracks: dict[int, Track] = {}
        self._on_first: Callable[[], None] | None = None
        self._needs_keyframe = True
        self.pictures = self.refused = 0

    def begin(self, tracks: Sequence[Track], on_first: Callable[[], None]) -> None:
        """A connection has been made; `on_first` is called before its first picture is given out, a keyframe."""
        self._tracks = {track.payload_type: track for track in tracks if can_pass(track)}
        self._on_first, self._needs_keyframe = on_first, True
        for track in self._tracks.values():
            self._timelines[track.kind].begin(track.clock)
            if track.kind == "video":
                self._pictures_of = depacketizer.H264(track.sets)
            elif track.codec == "aac":
                self._frames_of = aac.Framer(track.sets[0])

    def take(self, data: bytes) -> None:
        """One RTP packet."""
        try:
            packet = depacketizer.parse(data)
        except Refused:
            self.refused += 1
            return
        track = self._tracks.get(packet.payload_type)
        if track is None:
            return
        if track.codec == "aac":
            self._frames(track, packet)
        elif track.kind == "audio":
            self._give(track, packet.time, packet.payload)
        elif self._pictures_of:
            for unit in self._pictures_of.push(packet):
                # What came before the connection broke has nothing to do with what comes now.
                if unit.is_keyframe or not self._needs_keyframe:
                    self._needs_keyframe = False
                    self.pictures += 1
                    self._give(track, unit.time, unit.data, is_keyframe=unit.is_keyframe)

    def _frames(self, track: Track, packet: depacketizer.Packet) -> None:
        assert self._frames_of
        try:
            for at, frame in enumerate(self._frames_of.frames(packet.payload)):
                self._give(track, (packet.time + at * aac.SAMPLES) & 0xFFFFFFFF, frame)
        except Refused:
            self.refused += 1

    def _give(self, track: Track, rtp: int, data: bytes, *, is_keyframe: bool = False) -> None:
        if track.kind == "video" and self._on_first:
            self._on_first()
            self._on_first = None
        time_us = self._timelines[track.kind].time_us(rtp, self._now_us())
        number = self._numbers[track.kind] = self._numbers[track.kind] + 1
        kind, codec = cast(Any, track.kind), cast(Any, track.codec)
        self._on_unit(self._stream, Unit(kind, codec, number, time_us, is_keyframe), data)


def can_pass(track: Track) -> bool:
    """Whether units can be made of it."""
    try:
        return track.codec in PASSED and (track.codec != "aac" or bool(aac.Framer(b"".join(track.sets))))
    except Refused:
        return False
