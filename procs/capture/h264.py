"""Bare H.264 in, MPEG-TS out: finds where each picture ends, and stamps it with the time at which it came. Pure.

Source: ITU-T H.264 7.4.1.2.3 (what begins an access unit), Annex B.
"""

from __future__ import annotations

from procs.capture.clock import Clock
from procs.capture.packetizer import Packetizer
from procs.capture.unit import Patience, Unit
from procs.errors import Refused
from procs.media import annexb
from procs.media.tspackets import CLOCK_HZ, ticks

PICTURE_BYTES_MAX = 8 << 20
_OPENS = frozenset({annexb.SEI, annexb.SPS, annexb.PPS, annexb.AUD, 14, 15, 16, 17, 18})
_AUD = annexb.START_4 + b"\x09\xf0"  # any slice types; MPEG-TS wants a delimiter in front of each picture (2.14.1)
_STEADY_TICKS = CLOCK_HZ // 10


class AccessUnits:
    """Cuts a byte stream into access units. Bounded: Refused where no picture ends within PICTURE_BYTES_MAX."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._scanned = 0  # no start code begins before here that has not been looked at
        self._has_slice = False
        self._is_fresh = True  # the first start code in hand has not been looked at
        self._was_quiet = False  # a pause, not a start code, ended the last unit
        self.patience = Patience()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in hand."""
        return not self._data

    def waiting(self) -> float | None:
        """After how many seconds without a byte `quiet` should be called; None when there is nothing to end."""
        return self.patience.quiet_s if self._has_slice else None

    def push(self, data: bytes) -> list[bytes]:
        """The units that this data shows to be over."""
        self._data += data
        units, at = [], self._data.find(annexb.START_3, self._scanned)
        while 0 <= at < len(self._data) - 4:
            head, body = self._data[at + 3] & 0x1F, self._data[at + 4]
            is_slice = annexb.SLICE <= head <= annexb.IDR
            # first_mb_in_slice is 0 in a picture's first slice, which is coded as a single 1 bit
            opens = head in _OPENS or (is_slice and bool(body & 0x80))
            if self._is_fresh:
                at = self._begin(at, goes_on=not opens)
            if self._has_slice and opens:
                units.append(self._cut(at - (self._data[at - 1] == 0)))
                at = self._data.find(annexb.START_3)
            self._has_slice |= is_slice
            self._scanned = at + 3
            at = self._data.find(annexb.START_3, self._scanned)
        self._scanned = max(self._scanned, len(self._data) - 2) if at < 0 else at
        if len(self._data) > PICTURE_BYTES_MAX:
            raise Refused(f"no picture ends within {PICTURE_BYTES_MAX} bytes: this is no H.264")
        return units

    def quiet(self) -> list[bytes]:
        """Nothing came for as long as `waiting` said: the unit in hand is over."""
        if not self._has_slice:
            return []
        self._is_fresh = self._was_quiet = True
        return [self._cut(len(self._data))]

    def _begin(self, at: int, *, goes_on: bool) -> int:
        """Drop what comes before the first start code; returns where that is then. After a pause it tells whether the
        pause was the end of a picture."""
        lead = at - (at > 0 and self._data[at - 1] == 0)
        if self._was_quiet and (goes_on or any(self._data[:lead])):
            self.patience.was_wrong()
        del self._data[:lead]
        self._is_fresh = self._was_quiet = False
        return at - lead

    def _cut(self, end: int) -> bytes:
        unit = bytes(self._data[:end])
        del self._data[:end]
        self._scanned, self._has_slice = 0, False
        return unit


class H264:
    """Access units as MPEG-TS, from the first keyframe on. Each keyframe carries SPS and PPS, whether the encoder
    repeats them or not."""

    def __init__(self, fps: int = 0) -> None:
        """`fps`: how far apart pictures are; 0 stamps each with its arrival."""
        self._fps, self._index = fps, 0
        self._units = AccessUnits()
        self._clock = Clock(_STEADY_TICKS)
        self._packetizer = Packetizer()
        self._sets: list[bytes] = []
        self._sets_first = annexb.SetsFirst()
        self._has_begun = False
        self._since_ns = 0  # when the first byte in hand came

    def waiting(self) -> float | None:
        """As AccessUnits.waiting."""
        return self._units.waiting()

    def push(self, data: bytes, now_ns: int) -> list[Unit]:
        """The pictures that this data, which came at `now_ns`, shows to be over. Refused as AccessUnits.push."""
        if self._units.is_empty:
            self._since_ns = now_ns
        return self._stamped(self._units.push(data), now_ns)

    def quiet(self, now_ns: int) -> list[Unit]:
        """Nothing came for as long as `waiting` said: the picture in hand is over."""
        return self._stamped(self._units.quiet(), now_ns)

    def _stamped(self, units: list[bytes], now_ns: int) -> list[Unit]:
        stamped = []
        for unit in units:
            stamped += self._picture(unit, self._since_ns)
            self._since_ns = now_ns
        return stamped

    def _picture(self, unit: bytes, arrived_ns: int) -> list[Unit]:
        time = self._index * CLOCK_HZ // self._fps if self._fps else ticks(arrived_ns)
        self._index += 1
        keyframe = annexb.is_keyframe(unit)
        unit = self._with_sets(unit) if keyframe else unit
        self._has_begun |= keyframe and bool(self._sets)
        if not self._has_begun:
            return []
        time += self._clock.follow(time, arrived_ns)
        unit = self._sets_first.push(unit)
        if annexb.nal_type(unit[unit.index(annexb.START_3) + 3 :][:1]) != annexb.AUD:
            unit = _AUD + unit
        return [Unit(self._packetizer.picture(unit, time, keyframe=keyframe), picture=True, keyframe=keyframe)]

    def _with_sets(self, unit: bytes) -> bytes:
        """A keyframe with SPS and PPS: its own, else the last ones."""
        own = [nal for nal in annexb.before_slice(unit) if annexb.nal_type(nal) in (annexb.SPS, annexb.PPS)]
        self._sets = own or self._sets
        for nal in self._sets if not own else []:
            unit = annexb.insert_before_slice(unit, nal)
        return unit
