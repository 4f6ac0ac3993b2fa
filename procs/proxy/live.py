"""Pictures on their way to a viewer who may be too slow for them. Pure: bytes and times in, bytes out.

Splitters find where pictures begin and end (fragmented MP4, parts of MJPEG, messages of go2rtc's WebSocket) and from
which of them a viewer can go on; Backlog leaves out whole ones, from where they get too old to the next keyframe: a
viewer on a thin line sees few pictures, but whole ones and of now. What no splitter understands is never left out.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple, Protocol

import msgspec

from procs.errors import Refused
from procs.proxy.mp4 import Mp4
from procs.proxy.unit import MAX_UNIT, Cutter, Unit
from procs.wire.mux1 import DROPPED_BEFORE, KEY, TEXT

LATE_S = 0.5  # a picture that has waited for longer is not worth sending
MAX_WAITING = 4 * 1024 * 1024  # bytes
MAX_PART_HEADER = 1024

_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n")


class Splitter(Protocol):
    """Cuts a flow of bytes into units."""

    def feed(self, data: bytes) -> list[Unit]:
        """The units that these bytes complete."""

    def rest(self) -> bytes:
        """What is left of a flow that has ended."""


class _Waiting(NamedTuple):
    """A unit since when, and whether something was left out between it and the one before."""

    since: float
    unit: Unit
    after_gap: bool


class Backlog:
    """What waits for a viewer."""

    def __init__(self, late_s: float = LATE_S, max_waiting: int = MAX_WAITING) -> None:
        self._late_s, self._max_waiting = late_s, max_waiting
        self._units: deque[_Waiting] = deque()
        self._is_skipping = False  # until the next keyframe
        self._is_gap = False  # at the end, before what comes next
        self.size = 0  # bytes that wait
        self.dropped = 0  # units left out so far

    def __len__(self) -> int:
        return len(self._units)

    def put(self, unit: Unit, now: float) -> None:
        """Something new, at a time in seconds."""
        if self._is_skipping and unit.may_drop:
            if not unit.is_key:
                self.dropped += 1
                self._is_gap = True
                return
            self._is_skipping = False
        self._units.append(_Waiting(now, unit, self._is_gap and unit.may_drop))
        self._is_gap = self._is_gap and not unit.may_drop
        self.size += len(unit.data)
        oldest = next((each.since for each in self._units if each.unit.may_drop), now)
        if now - oldest > self._late_s or self.size > self._max_waiting:
            self._drop()

    def pop(self) -> tuple[bytes, int]:
        """The next to be sent, and its flags."""
        _, unit, after_gap = self._units.popleft()
        self.size -= len(unit.data)
        is_key = unit.is_key and unit.may_drop
        return unit.data, unit.flags | (KEY if is_key else 0) | (DROPPED_BEFORE if after_gap else 0)

    def _drop(self) -> None:
        """Leave out what is before the last keyframe that waits; without one everything, until one comes."""
        pictures = [number for number, each in enumerate(self._units) if each.unit.may_drop]
        keys = [number for number in pictures if self._units[number].unit.is_key]
        if not pictures:
            return
        if not keys:
            kept = range(0)
        elif keys[-1] > pictures[0]:
            kept = range(keys[-1], len(self._units))
            self._units[keys[-1]] = self._units[keys[-1]]._replace(after_gap=True)
        else:  # not even this keyframe gets through in time: nothing after it, then
            kept = range(keys[-1], keys[-1] + 1)
        self._is_skipping = not keys or keys[-1] == pictures[0]
        self._is_gap = self._is_gap or pictures[-1] not in kept
        left = [each for number, each in enumerate(self._units) if number in kept or not each.unit.may_drop]
        self.dropped += len(self._units) - len(left)
        self._units = deque(left)
        self.size = sum(len(each.unit.data) for each in left)


class Mjpeg(Cutter):
    """multipart/x-mixed-replace: each part with its header, and the line end after it."""

    def _end_of_unit(self) -> int:
        head = self._buffer.find(b"\r\n\r\n", 0, MAX_PART_HEADER)
        if head < 0:
            if len(self._buffer) >= MAX_PART_HEADER:
                raise Refused("no part")
            return 0
        length = _LENGTH.search(self._buffer, 0, head + 2)
        if not length or int(length[1]) > MAX_UNIT:
            raise Refused("a part without a length")
        end = head + 4 + int(length[1]) + 2
        if len(self._buffer) >= end and self._buffer[end - 2 : end] != b"\r\n":
            raise Refused("a part of another length")
        return end if len(self._buffer) >= end else 0

    def _unit(self, piece: bytes) -> Unit:
        return Unit(piece, True, True)


class _Said(msgspec.Struct):
    type: str = ""


class Messages:
    """Messages of go2rtc's /api/ws, in the modes of its page: mse, mjpeg, webcodecs."""

    def __init__(self) -> None:
        self._mp4 = Mp4()
        self._is_webcodecs = self._has_video = False

    def unit(self, data: bytes, *, is_text: bool) -> Unit:
        """What one message is."""
        if is_text:
            try:
                said = msgspec.json.decode(data, type=_Said).type
            except (msgspec.DecodeError, RecursionError):
                said = ""
            if said in ("mse", "mjpeg", "mp4", "webcodecs"):
                self._is_webcodecs = said == "webcodecs"
            return Unit(data, False, False, TEXT)
        if self._is_webcodecs and len(data) >= 9:  # flags: 0x80 video, 0x40 keyframe; then a time and the picture
            self._has_video = self._has_video or data[0] & 0x80 != 0
            return Unit(data, data[0] & 0xC0 == 0xC0 or not self._has_video, True)
        if data[:3] == b"\xff\xd8\xff":
            return Unit(data, True, True)
        return self._mp4.message(data)
