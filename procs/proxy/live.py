"""Pictures on their way to a viewer who may be too slow for them. Pure: bytes and times in, bytes out.

Splitters find where pictures begin and end (fragmented MP4, parts of MJPEG, messages of go2rtc's WebSocket) and from
which of them a viewer can go on; Backlog leaves out whole ones, from where they get too old to the next keyframe: a
viewer on a thin line sees few pictures, but whole ones and of now. What no splitter understands is never left out.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from typing import NamedTuple, Protocol

import msgspec

from procs.errors import Refused
from procs.wire.mux1 import DROPPED_BEFORE, KEY, TEXT

LATE_S = 0.5  # a picture that has waited for longer is not worth sending
MAX_WAITING = 4 * 1024 * 1024  # bytes
MAX_UNIT = 16 * 1024 * 1024  # bytes of one picture
MAX_PART_HEADER = 1024

_BOX = struct.Struct(">I4s")
_U32 = struct.Struct(">I")
_NOT_SYNC = 0x10000  # sample_is_non_sync_sample
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n")


class Unit(NamedTuple):
    """What is sent whole or not at all."""

    data: bytes
    is_key: bool  # a viewer can begin here
    may_drop: bool
    flags: int = 0  # of the DATA frame


class Splitter(Protocol):
    """Cuts a flow of bytes into units."""

    def feed(self, data: bytes) -> list[Unit]:
        """The units that these bytes complete."""

    def rest(self) -> bytes:
        """What is left of a flow that has ended."""


class Backlog:
    """What waits for a viewer."""

    def __init__(self, late_s: float = LATE_S, max_waiting: int = MAX_WAITING) -> None:
        self._late_s, self._max_waiting = late_s, max_waiting
        self._units: deque[tuple[float, Unit]] = deque()
        self._bytes = 0
        self._is_skipping = False  # until the next keyframe
        self._is_gap = False  # before the next unit that may be left out
        self.dropped = 0  # units left out so far

    def __len__(self) -> int:
        return len(self._units)

    @property
    def size(self) -> int:
        """How much waits."""
        return self._bytes

    def put(self, unit: Unit, now: float) -> None:
        """Something new, at a time in seconds."""
        if self._is_skipping and unit.may_drop:
            if not unit.is_key:
                self.dropped += 1
                return
            self._is_skipping = False
        self._units.append((now, unit))
        self._bytes += len(unit.data)
        oldest = next((since for since, each in self._units if each.may_drop), now)
        if now - oldest > self._late_s or self._bytes > self._max_waiting:
            self._drop()

    def pop(self) -> tuple[bytes, int]:
        """The next to be sent, and its flags."""
        _, unit = self._units.popleft()
        self._bytes -= len(unit.data)
        flags = unit.flags
        if unit.may_drop:
            flags |= (KEY if unit.is_key else 0) | (DROPPED_BEFORE if self._is_gap else 0)
            self._is_gap = False
        return unit.data, flags

    def _drop(self) -> None:
        """Leave out what is before the last keyframe that waits; without one everything, until one comes."""
        pictures = [number for number, (_, unit) in enumerate(self._units) if unit.may_drop]
        keys = [number for number in pictures if self._units[number][1].is_key]
        if not pictures:
            return
        if not keys:
            kept = range(0)
        elif keys[-1] > pictures[0]:
            kept = range(keys[-1], len(self._units))
        else:  # not even this keyframe gets through in time: nothing after it, then
            kept = range(keys[-1], keys[-1] + 1)
        self._is_skipping = not keys or keys[-1] == pictures[0]
        left = [each for number, each in enumerate(self._units) if number in kept or not each[1].may_drop]
        self.dropped += len(self._units) - len(left)
        self._is_gap = self._is_gap or len(left) < len(self._units)
        self._units = deque(left)
        self._bytes = sum(len(unit.data) for _, unit in left)


class Tracks:
    """What an initialisation segment says about where a viewer can begin."""

    def __init__(self) -> None:
        self._video: set[int] = set()
        self._defaults: dict[int, int] = {}  # track -> sample flags, unless a fragment says otherwise
        self.is_known = False

    def learn(self, moov: memoryview) -> None:
        """Read a `moov` box's contents. Raises Refused."""
        self._video, self._defaults, self.is_known = set(), {}, True
        for kind, body in _boxes(moov):
            if kind == b"trak":
                self._learn_track(body)
            elif kind == b"mvex":
                for name, trex in _boxes(body):
                    if name == b"trex":
                        self._defaults[_u32(trex, 4)] = _u32(trex, 20)

    def _learn_track(self, trak: memoryview) -> None:
        number, is_video = 0, False
        for kind, body in _boxes(trak):
            if kind == b"tkhd":
                number = _u32(body, 20 if _u32(body, 0) >> 24 else 12)
            elif kind == b"mdia":
                is_video = any(name == b"hdlr" and bytes(body[8:12]) == b"vide" for name, body in _boxes(body))
        if is_video:
            self._video.add(number)

    def is_key(self, moof: memoryview) -> bool:
        """Whether a viewer can begin with the fragment of this `moof` box's contents. Raises Refused."""
        if not self._video:
            return True
        return any(kind == b"traf" and self._is_key_of_video(body) for kind, body in _boxes(moof))

    def _is_key_of_video(self, traf: memoryview) -> bool:
        flags = 0
        for kind, body in _boxes(traf):
            if kind == b"tfhd":
                track = _u32(body, 4)
                if track not in self._video:
                    return False
                flags = _default_of_fragment(body, self._defaults.get(track, 0))
            elif kind == b"trun":
                return not _flags_of_first(body, flags) & _NOT_SYNC
        return False


def _default_of_fragment(tfhd: memoryview, default: int) -> int:
    bits, at = _u32(tfhd, 0) & 0xFFFFFF, 8
    for bit, size in ((0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4)):
        at += size if bits & bit else 0
    return _u32(tfhd, at) if bits & 0x20 else default


def _flags_of_first(trun: memoryview, default: int) -> int:
    bits, at = _u32(trun, 0) & 0xFFFFFF, 8 + (4 if _u32(trun, 0) & 0x1 else 0)
    if bits & 0x4:
        return _u32(trun, at)
    if bits & 0x400:
        return _u32(trun, at + sum(4 for bit in (0x100, 0x200) if bits & bit))
    return default


def _u32(data: memoryview, at: int) -> int:
    if len(data) < at + 4:
        raise Refused("a box is too short")
    return int(_U32.unpack_from(data, at)[0])


def _boxes(data: memoryview) -> list[tuple[bytes, memoryview]]:
    """(type, contents) of each box. Raises Refused."""
    found, at = [], 0
    while at < len(data):
        size = _u32(data, at)
        if size < 8 or at + size > len(data):
            raise Refused("a box is cut off")
        found.append((bytes(data[at + 4 : at + 8]), data[at + 8 : at + size]))
        at += size
    return found


class Mp4:
    """Fragmented MP4: the beginning (ftyp, moov), then fragments, each up to the end of its mdat."""

    def __init__(self) -> None:
        self._tracks = Tracks()
        self._buffer = bytearray()
        self._is_opaque = False  # something else after all

    def feed(self, data: bytes) -> list[Unit]:
        """The units that these bytes complete."""
        if self._is_opaque:
            return [Unit(data, False, False)]
        self._buffer += data
        units = []
        try:
            while end := self._end_of_unit():
                piece = bytes(self._buffer[:end])
                units.append(self._unit(piece))
                del self._buffer[:end]
        except Refused:
            self._is_opaque = True
            units.append(Unit(self.rest(), False, False))
        return units

    def rest(self) -> bytes:
        """What is left of a flow that has ended."""
        left = bytes(self._buffer)
        self._buffer.clear()
        return left

    def message(self, data: bytes) -> Unit:
        """A unit that has come as a message of its own."""
        try:
            return self._unit(data)
        except Refused:
            return Unit(data, False, False)

    def _end_of_unit(self) -> int:
        """Where the first unit of the buffer ends; 0 if it has not come whole. Raises Refused."""
        at = 0
        while at + 8 <= len(self._buffer):
            size, kind = _BOX.unpack_from(self._buffer, at)
            if not 8 <= size <= MAX_UNIT or at + size > MAX_UNIT:
                raise Refused("no box")
            at += size
            if at > len(self._buffer):
                return 0
            if kind in (b"mdat", b"moov"):
                return int(at)
        return 0

    def _unit(self, piece: bytes) -> Unit:
        for kind, body in _boxes(memoryview(piece)):
            if kind == b"moov":
                self._tracks.learn(body)
                return Unit(piece, False, False)
            if kind == b"moof" and self._tracks.is_known:
                return Unit(piece, self._tracks.is_key(body), True)
        return Unit(piece, False, False)


class Mjpeg:
    """multipart/x-mixed-replace: each part with its header, and the line end after it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_opaque = False

    def feed(self, data: bytes) -> list[Unit]:
        """The units that these bytes complete."""
        if self._is_opaque:
            return [Unit(data, False, False)]
        self._buffer += data
        units = []
        try:
            while end := self._end_of_part():
                units.append(Unit(bytes(self._buffer[:end]), True, True))
                del self._buffer[:end]
        except Refused:
            self._is_opaque = True
            units.append(Unit(self.rest(), False, False))
        return units

    def rest(self) -> bytes:
        """What is left of a flow that has ended."""
        left = bytes(self._buffer)
        self._buffer.clear()
        return left

    def _end_of_part(self) -> int:
        """Where the first part ends; 0 if it has not come whole. Raises Refused."""
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
